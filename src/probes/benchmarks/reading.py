"""Part "reading": one layer of a store against the same bytes in a plain memory-mapped file."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probes.activations.collect import collect
from probes.activations.engine import Task
from probes.activations.format import Maker
from probes.activations.store import ActivationStore
from probes.benchmarks.result import Asked, row, take_turns
from probes.benchmarks.workload import SHAPES, draw_lengths, exact_prompts, write_checkpoint
from probes.foundation.artifact import disk_errors
from probes.foundation.errors import InputError, StageError
from probes.models.encoding import encode
from probes.models.loading import Model, load
from probes.models.sites import Site

N_ROWS = 1_000_000
WIDTH = SHAPES["wide"].d_model
SITE = Site("resid_post", 0)
PIECE_ROWS = 1 << 16
STORE, PLAIN = "rows of one site of a store", "np.memmap, copied"
SPARE = 1.2


def bytes_needed(n_rows: int) -> int:
    """What the part writes: the rows in a store, and once more in a flat file."""
    return 2 * n_rows * WIDTH * 4


def check_free(place: Path, n_bytes: int) -> None:
    """Refuse to begin where the disk cannot hold what will be written."""
    free = shutil.disk_usage(place).free
    if free < SPARE * n_bytes:
        raise InputError(
            f"the reading part of the benchmark writes {n_bytes / 1e9:.1f} GB, and {place} has "
            f"{free / 1e9:.1f} GB free. Choose another place with --out, or leave this part out"
        )


def measure(
    n_rows: int, repeats: int, place: Path, *, judged: bool, seed: int = 0
) -> list[dict[str, Any]]:
    """Read the same rows from a store and from a flat file, in turns, both from the page cache.

    The store is of all tokens of prompts of uneven length, so that its rows lie in another order
    than that of the prompts, in which they are read. What is read is compared, row by row.
    """
    check_free(place, bytes_needed(n_rows))
    flat = _write_flat(place / "rows.f32", n_rows)
    store = write_rows_store(place / "store", flat, place, seed)

    def after(name: str, found: np.ndarray, folder: Path) -> None:
        pieces = [slice(start, start + PIECE_ROWS) for start in range(0, n_rows, PIECE_ROWS)]
        if found.shape != flat.shape or not all(
            np.array_equal(found[piece], flat[piece]) for piece in pieces
        ):
            raise StageError(f"{name} did not read the rows that were written")

    jobs = {
        STORE: lambda _: ActivationStore.open(store.path).rows(SITE),
        PLAIN: lambda _: np.array(np.memmap(place / "rows.f32", np.float32, "r", shape=flat.shape)),
    }
    take_turns(jobs, 1, place, after=after)
    seconds = take_turns(jobs, repeats, place, after=after)
    job = f"read one layer, {n_rows:,} rows of {WIDTH}"
    rates = {name: seconds[name].rate(flat.nbytes) for name in jobs}
    ratio = rates[STORE].median / rates[PLAIN].median
    return [
        row(job, PLAIN, "bytes per second", rates[PLAIN], "bytes/s"),
        row(
            job, STORE, "bytes per second", rates[STORE], "bytes/s",
            against=PLAIN, ratio=ratio, asked=Asked(">=", 0.8), judged=judged,
        ),
    ]  # fmt: skip


def write_rows_store(path: Path, rows: np.ndarray, place: Path, seed: int) -> ActivationStore:
    """A store with these rows, `[n_rows, WIDTH]` float32, in this order, written by `collect`.

    An engine that copies the rows takes the place of the model's forward passes.
    """
    model = load(write_checkpoint(place / "wide", SHAPES["wide"], seed))
    prompts = exact_prompts(model.tokenizer, _lengths(len(rows), seed), seed)
    first: dict[bytes, int] = {}
    start = 0
    for ids in encode(prompts, model.tokenizer):
        first[np.array(ids, np.int32).tobytes()] = start
        start += len(ids)

    def copying(
        model: Model, tasks: Sequence[Task], maker: Maker
    ) -> Iterator[tuple[Task, dict[str, Tensor]]]:
        for task in tasks:
            layout = task.job().layout
            sequences = [layout.sequence(i) for i in range(layout.n_sequences)]
            starts = [first[ids.tobytes()] for ids in sequences]
            found = [rows[at : at + len(ids)] for at, ids in zip(starts, sequences, strict=True)]
            yield task, {str(SITE): torch.from_numpy(np.concatenate(found))}

    return collect(model, prompts, path, sites=[SITE], positions="all", engine=copying)


def _lengths(n_rows: int, seed: int) -> list[int]:
    """Uneven prompt lengths whose sum is the number of rows."""
    found: list[int] = []
    left = n_rows
    for length in draw_lengths(max(2, n_rows // 16), seed, 16, 512):
        found.append(min(length, left))
        left -= found[-1]
        if not left:
            return found
    raise InputError(f"{n_rows} rows are too few for prompts of 16 to 512 tokens")


def _write_flat(file: Path, n_rows: int) -> np.ndarray:
    """Random rows in a file, mapped."""
    with disk_errors(file), file.open("wb", buffering=0) as out:
        for number, start in enumerate(range(0, n_rows, PIECE_ROWS)):
            shape = (min(PIECE_ROWS, n_rows - start), WIDTH)
            piece = np.random.default_rng(number).random(shape, dtype=np.float32)
            piece.tofile(out)
    return np.memmap(file, np.float32, "r", shape=(n_rows, WIDTH))
