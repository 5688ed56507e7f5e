"""Files of a store: written in one pass with their digests, and checked against them."""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
import xxhash
from torch import Tensor

from probes.activations.format import (
    FINISHED,
    MANIFEST,
    PROVENANCE,
    UNFINISHED,
    FileRecord,
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
