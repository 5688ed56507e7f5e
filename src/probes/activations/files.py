"""Files of a store: written in one pass with their digests, checked against them, and read.

Rows of one site come from the shards that hold them: whole shards in one read, single rows mapped.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import xxhash
from torch import Tensor

from probes.activations.format import (
    FINISHED,
    MANIFEST,
    PROVENANCE,
    UNFINISHED,
    FileRecord,
    GroupRecord,
    Manifest,
    ShardRecord,
)
from probes.foundation.artifact import (
    TEMPORARY,
    disk_errors,
    sync_directory,
    temporary_name,
    write_bytes,
)
from probes.foundation.digest import digest_bytes, digest_file
from probes.foundation.errors import IntegrityError
from probes.foundation.folders import plain_file
from probes.models.loading import DTYPES

DTYPE_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
ALIGNMENT = 64
PIECE_BYTES = 8 << 20
MEND = "`probes store repair` makes it again"


@dataclasses.dataclass(frozen=True)
class Written:
    """What a file of tensors came out as; `starts` and `checks` in the order of the tensors."""

    record: FileRecord
    starts: tuple[int, ...]
    checks: tuple[str, ...]

    def shard(self, sites: Iterable[str], maker: int) -> ShardRecord:
        """Its record as a shard of these sites, one tensor each, by the maker of this number."""
        return ShardRecord(
            **self.record.model_dump(),
            sites=tuple(sites),
            starts=self.starts,
            checks=self.checks,
            maker=maker,
        )


def write_small(path: Path, data: bytes) -> FileRecord:
    """Write a file whole or not at all, and what proves it."""
    write_bytes(path, data)
    return FileRecord(file=path.name, sha256=digest_bytes(data), bytes=len(data))


def write_named(path: Path, kind: str, data: bytes) -> FileRecord:
    """Write under a name that the content decides, unless it is there already."""
    digest = digest_bytes(data)
    record = FileRecord(file=f"{kind}-{digest[:16]}.safetensors", sha256=digest, bytes=len(data))
    return record if is_whole(path, record) else write_small(path / record.file, data)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> Written:
    """Write contiguous CPU tensors as safetensors, hashing on the way; whole or not at all.

    The library serialises into a second copy and leaves hashing to a second pass; this writes from
    the tensors' own memory, outside the interpreter's lock, so that computing goes on meanwhile.
    """
    header = _header(tensors)
    temporary = temporary_name(path)
    total = hashlib.sha256(header)
    starts, checks, size = [], [], len(header)
    with disk_errors(path):
        try:
            with temporary.open("wb", buffering=0) as file:
                _write_all(file.fileno(), memoryview(header))
                for tensor in tensors.values():
                    check = xxhash.xxh3_64()
                    data = tensor.reshape(-1).view(torch.uint8).numpy().data
                    for start in range(0, len(data), PIECE_BYTES):
                        piece = data[start : start + PIECE_BYTES]
                        total.update(piece)
                        check.update(piece)
                        _write_all(file.fileno(), piece)
                    starts.append(size)
                    checks.append(check.hexdigest())
                    size += len(data)
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_directory(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    record = FileRecord(file=path.name, sha256=total.hexdigest(), bytes=size)
    return Written(record, tuple(starts), tuple(checks))


def check_size(path: Path, record: FileRecord) -> None:
    """Cheap check that a file of a store is there and of its length; for every opening."""
    file = path / record.file
    if not plain_file(file):
        raise IntegrityError(f"{file} is missing; {MEND}")
    size = file.stat().st_size
    if size != record.bytes:
        raise IntegrityError(
            f"{file} has {size} bytes, the manifest says {record.bytes}: it was cut or changed; "
            f"{MEND}"
        )


def has_size(path: Path, record: FileRecord) -> bool:
    """Whether a file of a store is there and of its length."""
    with contextlib.suppress(IntegrityError):
        check_size(path, record)
        return True
    return False


def check_digest(path: Path, record: FileRecord) -> None:
    """Full check of a file of a store: every byte is as written."""
    check_size(path, record)
    if (seen := digest_file(path / record.file)) != record.sha256:
        raise IntegrityError(
            f"{path / record.file} was changed after it was written: sha256 {seen}, the manifest "
            f"says {record.sha256}; {MEND}"
        )


def is_whole(path: Path, record: FileRecord) -> bool:
    """Whether every byte of a file is as written."""
    with contextlib.suppress(IntegrityError):
        check_digest(path, record)
        return True
    return False


def _header(tensors: Mapping[str, Tensor]) -> bytes:
    """Length and JSON of the safetensors format, padded so that the data starts aligned."""
    described: dict[str, object] = {}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        described[name] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


SHARD = r"shard-[0-9a-f]{16}\.safetensors"
TABLE = r"prompts-[0-9a-f]{16}\.parquet|(?:index|layout)-[0-9a-f]{16}\.safetensors"
DATA = re.compile(f"{SHARD}|{TABLE}")
SIDECAR = re.compile(SHARD + re.escape(FINISHED))


def check_names(manifest: Manifest, where: Path | str) -> None:
    """Refuse a manifest that names a file outside its store; raises `IntegrityError`.

    A name becomes a path that is read, written or deleted, and the key of a manifest does not cover
    the names of its files.
    """
    for record in manifest.files:
        if not DATA.fullmatch(record.file):
            raise IntegrityError(
                f"the manifest of {where} names a file {record.file!r}, which no store has: it was "
                "edited. Names are such as shard-0123456789abcdef.safetensors"
            )


def kind_of(name: str) -> str | None:
    """What a file is for in a store, by its name; None for one that is not a store's."""
    if DATA.fullmatch(name):
        return name.partition("-")[0]
    if SIDECAR.fullmatch(name):
        return "record of a finished shard"
    if name.startswith(TEMPORARY):
        return "temporary file"
    if name == UNFINISHED:
        return "mark of a collection under way"
    if name == PROVENANCE:
        return "history"
    return "manifest" if name == MANIFEST else None


def names_of(manifest: Manifest) -> frozenset[str]:
    """Names of the files that a manifest answers for."""
    return frozenset(record.file for record in manifest.files)


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
