"""Rows of one site from the shards that hold them: whole shards in one read, single rows mapped."""

import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import xxhash
from torch import Tensor

from probes.activations.files import MEND, check_size
from probes.activations.format import GroupRecord, Manifest
from probes.foundation.errors import IntegrityError
from probes.models.loading import DTYPES

# From this part of a shard's rows on, one sequential read of all costs less than mapping pages.
WORTH_READING_WHOLE = 0.25
# From this length on, in bytes, a piece is read to its place by a call of its own.
WORTH_ITS_OWN_READ = 1 << 14
MAX_THREADS = 8


def take(path: Path, manifest: Manifest, name: str, group: np.ndarray, row: np.ndarray) -> Tensor:
    """Rows of the site `name`, `[len(row), width]`, each from its group and its row in the group.

    A shard that is read whole is compared with its checksum; of one that is not, only the rows
    that are asked for are touched. Raises `IntegrityError` naming a damaged file.
    """
    width = int(np.prod(manifest.widths[name]))
    dtype = DTYPES[manifest.origin.dtype]
    # numpy's large arrays come in huge pages, torch's do not, and are slower to fill for it.
    if not len(row):
        return torch.empty(0, width, dtype=dtype)
    room = np.empty(len(row) * width * dtype.itemsize, dtype=np.uint8)
    out = torch.from_numpy(room).view(dtype).view(len(row), width)
    records = manifest.groups

    def one(job: tuple[int, np.ndarray]) -> None:
        number, target = job
        wanted = row[target]
        block = _Block.of(path, records[number], name, width, dtype)
        if len(wanted) < WORTH_READING_WHOLE * records[number].n_rows:
            out[torch.from_numpy(target)] = block.mapped()[torch.from_numpy(wanted)]
            return
        views = _destinations(room, target, wanted, records[number].n_rows, block.row_bytes)
        if views is not None:
            block.read_into(views)
        else:
            _scatter(out, target, block.read(), wanted)

    jobs = list(by_group(group))
    threads = min(len(jobs), MAX_THREADS, len(os.sched_getaffinity(0)))
    if threads <= 1:
        for job in jobs:
            one(job)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(one, jobs))
    return out


class _Block:
    """The rows of one site in one shard: bytes `start` to `start + n_bytes` of a file."""

    def __init__(
        self, file: Path, start: int, n_rows: int, width: int, dtype: torch.dtype, check: str
    ) -> None:
        self.file, self.start, self.check = file, start, check
        self.shape, self.dtype = (n_rows, width), dtype
        self.row_bytes = width * dtype.itemsize
        self.n_bytes = n_rows * self.row_bytes

    @classmethod
    def of(
        cls, path: Path, group: GroupRecord, name: str, width: int, dtype: torch.dtype
    ) -> "_Block":
        shard = next(shard for shard in group.shards if name in shard.sites)
        check_size(path, shard)
        place = shard.sites.index(name)
        start = shard.starts[place]
        return cls(path / shard.file, start, group.n_rows, width, dtype, shard.checks[place])

    def read(self) -> Tensor:
        """All rows, checked."""
        data = np.empty(self.n_bytes, dtype=np.uint8)
        self.read_into([data.data])
        return torch.from_numpy(data).view(self.dtype).view(self.shape)

    def read_into(self, views: Sequence[memoryview]) -> None:
        """All rows in order into these places, checked; the kernel copies straight into them."""
        seen = xxhash.xxh3_64()
        with self.file.open("rb", buffering=0) as file:
            file.seek(self.start)
            for view in views:
                _fill(file, view)
                seen.update(view)
        if seen.hexdigest() != self.check:
            raise IntegrityError(
                f"{self.file} was changed after it was written (checksum {seen.hexdigest()} where "
                f"the manifest says {self.check}); {MEND}"
            )

    def mapped(self) -> Tensor:
        """All rows as a view of the file; only what is looked at is read."""
        data = np.memmap(self.file, dtype=np.uint8, mode="c", offset=self.start, shape=self.n_bytes)
        return torch.from_numpy(data).view(self.dtype).view(self.shape)


def _fill(file: io.FileIO, room: memoryview) -> None:
    """Read until the room is full; the kernel gives at most 2 GiB at a time."""
    while room:
        n_read = file.readinto(room)
        if not n_read:
            raise IntegrityError(f"{file.name} is cut; {MEND}")
        room = room[n_read:]


def _destinations(
    room: np.ndarray, target: np.ndarray, wanted: np.ndarray, n_rows: int, row_bytes: int
) -> list[memoryview] | None:
    """Where the rows of a whole shard go, if that is in few long pieces; else None."""
    if len(wanted) != n_rows:
        return None
    in_file = np.argsort(wanted, kind="stable")
    if not bool((wanted[in_file] == np.arange(n_rows)).all()):
        return None
    target = target[in_file]
    cuts = np.flatnonzero(np.diff(target) != 1) + 1
    starts = np.concatenate([[0], cuts])
    stops = np.concatenate([cuts, [n_rows]])
    if n_rows * row_bytes < len(starts) * WORTH_ITS_OWN_READ:
        return None
    data = room.data
    return [
        data[int(target[a]) * row_bytes : (int(target[a]) + int(b - a)) * row_bytes]
        for a, b in zip(starts, stops, strict=True)
    ]


def by_group(group: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each group with the places in the output that it fills."""
    if not len(group):
        return
    order = np.argsort(group, kind="stable")
    edges = np.flatnonzero(np.diff(group[order])) + 1
    for places in np.split(order, edges):
        yield int(group[places[0]]), places


def _scatter(out: Tensor, target: np.ndarray, block: Tensor, wanted: np.ndarray) -> None:
    """out[target] = block[wanted], in one copy where the rows are all of them in order."""
    in_order = len(wanted) == len(block) and bool((wanted == np.arange(len(block))).all())
    chosen = block if in_order else block[torch.from_numpy(wanted)]
    out.index_copy_(0, torch.from_numpy(target), chosen)
