"""Finished or absent, never half: files and folders that appear whole, with a manifest that proves it.

A folder artifact is built under a temporary name beside its place, its files are digested and
synced, its manifest `artifact.json` is written last, and one rename makes it visible. A reader that
finds a manifest may trust it; whatever a killed run left behind is under a temporary name.
"""

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from probes.foundation.config import Config, flatten
from probes.foundation.digest import digest_file, digest_json, short
from probes.foundation.errors import InputError, IntegrityError, StageError
from probes.foundation.provenance import provenance

MANIFEST = "artifact.json"
TEMPORARY = ".tmp-"
PROCEDURES = "procedures"


class Manifest(Config):
    """What an artifact is, what made it, and the sha256 and size of each of its files."""

    schema_version: int = 1
    kind: str
    key: str
    facts: dict[str, Any]
    files: dict[str, tuple[str, int]]
    provenance: dict[str, Any]


@contextlib.contextmanager
def disk_errors(path: Path, doing: str = "writing") -> Iterator[None]:
    """Turn a full or read-only disk into an error that says which file, and what to do next."""
    try:
        yield
    except OSError as error:
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT:
                free = shutil.disk_usage(_existing_parent(path)).free / 2**20
                raise StageError(
                    f"the disk is full while {doing} {path} ({free:.0f} MiB free). Free some space and "
                    "run the same command again: what was finished is kept."
                ) from error
            case errno.EROFS | errno.EACCES | errno.EPERM:
                raise StageError(
                    f"no permission while {doing} {path}: the disk or folder is read-only. Choose "
                    "another place with --out, or make this one writable; nothing was lost."
                ) from error
            case _:
                raise


def write_text(path: Path | str, text: str) -> None:
    """Write a text file atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write a file so that it is either the old one or the whole new one, also after a power cut."""
    path = Path(path)
    temporary = temporary_name(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_directory(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def building(path: Path | str, *, kind: str, key: str, **facts: Any) -> Iterator[Path]:
    """Build a folder artifact: yields a temporary folder that becomes `path` when the block succeeds.

    `key` digests everything that determines the content; `facts` is JSON data shown to readers.
    An exception inside the block leaves nothing behind at `path`.
    """
    path = Path(path)
    temporary = temporary_name(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        discard_leftovers(path)
        temporary.mkdir()
        try:
            yield temporary
            manifest = Manifest(
                kind=kind,
                key=key,
                facts=facts,
                files=_inventory(temporary),
                provenance=provenance(),
            )
            write_bytes(temporary / MANIFEST, manifest.to_json().encode())
            if path.exists():
                shutil.rmtree(path)
            temporary.replace(path)
            sync_directory(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def read_manifest(path: Path | str) -> Manifest | None:
    """The manifest of a finished artifact, or None where there is none."""
    try:
        return (
            Manifest.from_file(Path(path) / MANIFEST) if (Path(path) / MANIFEST).exists() else None
        )
    except PermissionError as error:
        raise StageError(f"no permission to read {path}") from error


def is_finished(path: Path | str, key: str) -> bool:
    """True if a whole artifact made from exactly this key lies here and its files are as written."""
    manifest = read_manifest(path)
    if manifest is None or manifest.key != key:
        return False
    verify(path)
    return True


def is_made_from(path: Path | str, inputs: Mapping[str, Any]) -> bool:
    """True if a finished artifact of exactly these inputs lies here; that of others is refused.

    inputs: everything that determines the content, as JSON data with the versions of the procedures
    under `PROCEDURES`; their digest is the artifact's key, and they are among its facts. What an older
    procedure made counts as absent, to be made again. Raises `InputError` with the inputs that differ.
    """
    manifest = read_manifest(path)
    if manifest is None or is_finished(path, digest_json(inputs)):
        return manifest is not None
    there, asked = flatten(manifest.facts), flatten(json.loads(json.dumps(inputs)))
    differing = [name for name, value in asked.items() if there.get(name) != value]
    if any(name.split(".")[0] == PROCEDURES for name in differing):
        return False
    shown = "; ".join(f"{n}: {_show(there.get(n))} there, {_show(asked[n])} now" for n in differing)
    raise InputError(
        f"{path} holds a {manifest.kind} made from other inputs ({shown}). Choose another folder, or "
        "delete this one"
    )


def _show(value: object) -> str:
    text = str(value)
    return short(text) if len(text) == 64 else text


def verify(path: Path | str, files: Iterable[str] | None = None) -> Manifest:
    """Check an artifact against its manifest: every file, or those that are about to be read.

    Raises `IntegrityError` naming the file that was changed, is missing or is not the artifact's.
    """
    path = Path(path)
    manifest = read_manifest(path)
    if manifest is None:
        raise IntegrityError(f"{path} holds no finished artifact (no {MANIFEST})")
    for name in manifest.files if files is None else files:
        if name not in manifest.files:
            raise IntegrityError(f"{path / name} is not in {MANIFEST}: it was not written with it")
        digest, size = manifest.files[name]
        file = path / name
        if not file.exists():
            raise IntegrityError(f"{file} is missing; delete {path} and run again to rebuild it")
        if file.stat().st_size != size or (seen := digest_file(file)) != digest:
            seen = digest_file(file)
            raise IntegrityError(
                f"{file} was changed after it was written: sha256 {short(seen)}, manifest says "
                f"{short(digest)}; delete {path} and run again to rebuild it"
            )
    return manifest


def discard_leftovers(path: Path | str) -> None:
    """Remove what killed runs left of this artifact under temporary names."""
    path = Path(path)
    for leftover in path.parent.glob(f"{TEMPORARY}{path.name}-*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def sync_directory(path: Path) -> None:
    """Make a rename in this folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _inventory(folder: Path) -> dict[str, tuple[str, int]]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    for file in files:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    return {str(f.relative_to(folder)): (digest_file(f), f.stat().st_size) for f in files}


def temporary_name(path: Path) -> Path:
    return path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}")


def _existing_parent(path: Path) -> Path:
    return next(parent for parent in [path, *path.resolve().parents] if parent.exists())


def read_json(path: Path | str) -> Any:
    """Plain JSON from disk."""
    return json.loads(Path(path).read_text())
