"""How fast this disk takes a file from start to end, in the same minutes as everything else."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from probes.benchmarks import contenders as own
from probes.benchmarks.contenders import Contender, Read, compare, expected, run_trunk
from probes.benchmarks.result import Asked, Seconds, fastest, row, synchroniser, take_turns
from probes.benchmarks.workload import Workload
from probes.foundation.artifact import disk_errors

PIECE = 8 << 20


def write_sequentially(file: Path, n_bytes: int) -> int:
    """Write one file in pieces of 8 MiB and wait until the disk has it; returns its size.

    Random bytes, so that a disk that compresses gains nothing.
    """
    piece = memoryview(_noise())
    with disk_errors(file), file.open("wb", buffering=0) as out:
        left = n_bytes
        while left > 0:
            left -= out.write(piece[:left])
        os.fsync(out.fileno())
    return file.stat().st_size


@functools.cache
def _noise() -> bytes:
    return np.random.default_rng(0).bytes(PIECE)


TRUNK = (
    "trunk only, equal lengths",
    "trunk only, one prompt at a time",
    "trunk only, the batches of collect",
)
DISK = "one file, 8 MiB pieces, synced"
OURS = (own.MEMORY_LAST, own.MEMORY_ALL, own.DISK_LAST, own.DISK_ALL)
ASKED_OF_TRUNK = {
    own.MEMORY_LAST: Asked(">=", 0.95),
    own.MEMORY_ALL: Asked(">=", 0.95),
    own.DISK_LAST: Asked(">=", 0.85),
    own.DISK_ALL: None,
}
FASTER = Asked(">", 1.0)
ASKED_OF_PEERS = {"TransformerLens": Asked(">=", 2.5)}
WARM_UP = 4


def measure(work: Workload, repeats: int, place: Path, *, judged: bool) -> list[dict[str, Any]]:
    """Time every contender, in turns, and relate them; rows as `result.row` makes them.

    Before the clock runs, every contender does the first prompts as a warm-up. Every result, of the
    warm-up and of each timed turn, is compared with plain forward passes; `StageError` otherwise.
    """
    libraries = {
        "TransformerLens": own.transformer_lens(work.model),
        "Hugging Face": own.hugging_face(work.model),
        "nnsight": own.nnsight(work.model),
    }
    contenders = [*trunks(), *own.own(), *(one for all_ in libraries.values() for one in all_)]
    warm_up = work.head(WARM_UP)
    check(contenders, warm_up, place)
    seconds, stored = run(contenders, work, repeats, place)
    return rows(seconds, libraries, len(work), stored, judged=judged)


def check(contenders: Sequence[Contender], work: Workload, place: Path) -> None:
    """Run every contender once and compare its result; nothing is timed."""
    right = expected(work)
    jobs = {one.name: functools.partial(one.run, work) for one in contenders}
    by_name = {one.name: one for one in contenders}

    def after(name: str, read: Read, folder: Path) -> None:
        compare(by_name[name], read(), right)

    take_turns(jobs, 1, place, after=after)


def run(
    contenders: Sequence[Contender], work: Workload, repeats: int, place: Path
) -> tuple[dict[str, Seconds], int]:
    """Seconds of all contenders and of the disk, and how many bytes the store of all tokens has."""
    right = expected(work)
    by_name = {one.name: one for one in contenders}
    stored = 0

    def to_disk(folder: Path) -> Read:
        write_sequentially(folder / "bytes", stored)
        return lambda: right["last"]

    def after(name: str, read: Read, folder: Path) -> None:
        nonlocal stored
        if name == DISK:
            return
        compare(by_name[name], read(), right)
        if name == own.DISK_ALL:
            stored = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())

    jobs: dict[str, Callable[[Path], Read]] = {
        one.name: functools.partial(one.run, work) for one in contenders
    }
    jobs[DISK] = to_disk  # last, because it writes as many bytes as the store before it
    settle = synchroniser(work.model.device)
    return take_turns(jobs, repeats, place, after=after, settle=settle), stored


def rows(
    seconds: dict[str, Seconds],
    libraries: Mapping[str, Sequence[Contender]],
    n_prompts: int,
    stored: int,
    *,
    judged: bool,
) -> list[dict[str, Any]]:
    """Every measurement, and the ratios that were asked for.

    A peer that is lent the batches of `collect` runs the same forward passes, so nothing is asked
    of `collect` against it; the ratio says what the rest of its work costs.
    """
    limit = fastest(TRUNK, seconds)

    def gain(name: str, other: str) -> float:
        return seconds[other].median / seconds[name].median

    def speed(
        job: str, name: str, other: str = "", ratio: float | None = None, asked: Asked | None = None
    ) -> dict[str, Any]:
        rate = seconds[name].rate(n_prompts)
        return row(
            job, name, "prompts per second", rate, "prompts/s",
            against=other, ratio=ratio, asked=asked, judged=judged,
        )  # fmt: skip

    found = [speed("limit", name, limit, gain(name, limit)) for name in TRUNK]
    found += [speed("collect", n, limit, gain(n, limit), ASKED_OF_TRUNK[n]) for n in OURS]
    found += _all_tokens(seconds, limit, stored, judged=judged)
    for peers in libraries.values():
        found += [speed("peer", one.name, limit, gain(one.name, limit)) for one in peers]
    for library, peers in libraries.items():
        for one in peers:
            wanted = None if one.lent else ASKED_OF_PEERS.get(library, FASTER)
            ratio = gain(own.DISK_LAST, one.name)
            found.append(speed(f"against {library}", own.DISK_LAST, one.name, ratio, wanted))
    return found


def _all_tokens(
    seconds: dict[str, Seconds], limit: str, stored: int, *, judged: bool
) -> list[dict[str, Any]]:
    """Bytes per second onto the disk: of the store, and of what could at best be reached."""
    job, metric, unit = "collect, all tokens, bytes", "bytes per second", "bytes/s"
    store = seconds[own.DISK_ALL].rate(stored)
    disk = seconds[DISK].rate(stored)
    trunk = seconds[limit].rate(stored)
    slower = (limit, trunk) if trunk.median < disk.median else (DISK, disk)
    line = functools.partial(row, job, judged=judged)
    return [
        line(DISK, metric, disk, unit),
        line(limit, metric, trunk, unit),
        line(own.DISK_ALL, metric, store, unit, against=DISK, ratio=store.median / disk.median),
        line(own.DISK_ALL, metric, store, unit, against=limit, ratio=store.median / trunk.median),
        line(
            own.DISK_ALL, metric, store, unit,
            against=f"the slower of disk and trunk: {slower[0]}",
            ratio=store.median / slower[1].median,
        ),
    ]  # fmt: skip


def trunks() -> list[Contender]:
    def equal(work: Workload, folder: Path) -> Read:
        return run_trunk(work, work.equal_batches)

    def single(work: Workload, folder: Path) -> Read:
        return run_trunk(work, work.single_batches)

    def lent(work: Workload, folder: Path) -> Read:
        return run_trunk(work, work.sorted_batches)

    return [
        Contender(TRUNK[0], equal, "trunk"),
        Contender(TRUNK[1], single, "trunk"),
        Contender(TRUNK[2], lent, "trunk", lent=True),
    ]
