"""Part "reading": one layer of a store against the same bytes in a plain memory-mapped file."""

import os
import shutil
import statistics
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
COLD = ", cold"
IO = Path("/proc/self/io")


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
    """Read the same rows from a store and from a flat file, in turns: from the page cache, and from the disk.

    The store is of all tokens of prompts of uneven length, so that its rows lie in another order
    than that of the prompts, in which they are read. What is read is compared, row by row. For the cold
    turns the system is asked to forget both files; how much then came from the disk is a row of its own.
    """
    check_free(place, bytes_needed(n_rows))
    file, shape = place / "rows.f32", (n_rows, WIDTH)
    store = write_rows_store(place / "store", _write_flat(file, n_rows), place, seed)
    n_read: dict[str, list[int]] = {}

    def before(name: str) -> None:
        if name.endswith(COLD):
            forget(place)
        n_read.setdefault(name, []).append(-bytes_from_disk())

    def after(name: str, found: np.ndarray, folder: Path) -> None:
        n_read[name][-1] += bytes_from_disk()
        flat = np.memmap(file, np.float32, "r", shape=shape)
        pieces = [slice(start, start + PIECE_ROWS) for start in range(0, n_rows, PIECE_ROWS)]
        if found.shape != flat.shape or not all(
            np.array_equal(found[piece], flat[piece]) for piece in pieces
        ):
            raise StageError(f"{name} did not read the rows that were written")

    def stored(_: Path) -> np.ndarray:
        return ActivationStore.open(store.path).rows(SITE)

    def plain(_: Path) -> np.ndarray:
        return np.array(np.memmap(file, np.float32, "r", shape=shape))

    warm = {STORE: stored, PLAIN: plain}
    take_turns(warm, 1, place, after=after, before=before)
    seconds = take_turns(warm, repeats, place, after=after, before=before)
    n_bytes, rows = n_rows * WIDTH * 4, []
    if hasattr(os, "posix_fadvise") and IO.exists():
        cold = {f"{name}{COLD}": job for name, job in warm.items()}
        seconds |= take_turns(cold, repeats, place, after=after, before=before)
    job = f"read one layer, {n_rows:,} rows of {WIDTH}"
    for kind in ("", COLD):
        if (ours := STORE + kind) in seconds:
            rates = {name: seconds[name].rate(n_bytes) for name in (ours, PLAIN + kind)}
            ratio = rates[ours].median / rates[PLAIN + kind].median
            rows += [
                row(job, PLAIN + kind, "bytes per second", rates[PLAIN + kind], "bytes/s"),
                row(
                    job, ours, "bytes per second", rates[ours], "bytes/s",
                    against=PLAIN + kind, ratio=ratio, asked=Asked(">=", 0.8), judged=judged,
                ),
            ]  # fmt: skip
    rows += [
        row(
            job,
            name,
            "share that came from the disk",
            statistics.median(n_read[name]) / n_bytes,
            "",
        )
        for name in seconds
        if name.endswith(COLD)
    ]
    return rows


def forget(folder: Path) -> None:
    """Ask the system to keep nothing of these files in its page cache."""
    for each in (path for path in folder.rglob("*") if path.is_file()):
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def bytes_from_disk() -> int:
    """What this process has caused to be read from a disk until now; 0 where the system does not say."""
    if not IO.exists():
        return 0
    return int(dict(line.split(": ") for line in IO.read_text().splitlines())["read_bytes"])


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
