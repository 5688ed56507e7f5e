"""Finished or absent, never half: files and folders that appear whole, with a manifest that proves it.

A folder artifact is built under a temporary name beside its place, its files are digested and
synced, its manifest `artifact.json` is written last, and one rename makes it visible. A reader that
finds a manifest may trust it; whatever a killed run left behind is under a temporary name. What is
finished is never replaced by what other settings make, and no file is deleted that no manifest names.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from probes.foundation.config import SHOWN, Config, flatten
from probes.foundation.digest import digest_file, digest_json, short
from probes.foundation.errors import InputError, IntegrityError, StageError
from probes.foundation.folders import beside, files_below, inside, plain_file, remove
from probes.foundation.provenance import provenance

MANIFEST = "artifact.json"
TEMPORARY = ".tmp-"
PROCEDURES = "procedures"
CUT_SHORT = re.compile(
    r"PytorchStreamWriter failed|iostream error|unexpected pos \d+ vs|requested and \d+ written"
)
"""What torch and numpy say of a write that the system cut short, without its number."""


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
    """Turn a full or read-only disk into an error that says which file, and what to do next.

    Compiled libraries report it in errors of their own (tokenizers in a bare `Exception`), with the
    system's number in the text, or with none.
    """
    try:
        yield
    except Exception as error:  # what is not of the disk is raised again
        match _errno(error):
            case errno.ENOSPC | errno.EDQUOT:
                free = shutil.disk_usage(_existing_parent(path)).free / 2**20
                raise StageError(
                    f"the disk is full while {doing} {path} ({free:.0f} MiB free). Free some space and "
                    "run the same command again: what was finished is kept."
                ) from error
            case errno.EFBIG:
                raise StageError(
                    f"a file is larger than this system allows while {doing} {path}. Raise the limit "
                    "(`ulimit -f`) and run the same command again: what was finished is kept."
                ) from error
            case errno.EROFS | errno.EACCES | errno.EPERM:
                raise StageError(
                    f"no permission while {doing} {path}: the disk or folder is read-only. Choose "
                    "another place with --out, or make this one writable; nothing was lost."
                ) from error
            case _:
                raise


def _errno(error: Exception) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = re.search(r"os error (\d+)", str(error))
    if found is not None:
        return int(found[1])
    return errno.ENOSPC if CUT_SHORT.search(str(error)) else None


def write_text(path: Path | str, text: str) -> None:
    """Write a text file atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write a file so that it is either the old one or the whole new one, also after a power cut."""
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        discard_leftovers(path)
        temporary = temporary_name(path)
        try:
            with temporary.open("wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
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
    An exception inside the block leaves nothing behind at `path`. An older artifact there is
    replaced; `InputError` for a folder that holds anything else, in which nothing is touched.
    """
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_replaceable(path)
        discard_leftovers(path)
        with temporary_folder(path) as temporary:
            yield temporary
            manifest = Manifest(
                kind=kind,
                key=key,
                facts=facts,
                files=_inventory(temporary),
                provenance=provenance(),
            )
            write_bytes(temporary / MANIFEST, manifest.to_json().encode())
            _check_replaceable(path)
            if path.exists():
                remove(path)
            temporary.replace(path)
            sync_directory(path.parent)


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, gone afterwards; it is locked, so that no other process discards it."""
    temporary = temporary_name(path)
    temporary.mkdir()
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        with contextlib.suppress(
            OSError
        ):  # a file system without locks: nothing is discarded there
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield temporary
    finally:
        if temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)
        os.close(descriptor)


def read_manifest(path: Path | str) -> Manifest | None:
    """The manifest of a finished artifact, or None where there is none; `IntegrityError` for a bad one."""
    file = Path(path) / MANIFEST
    try:
        if not plain_file(file):
            return None
        manifest = Manifest.from_file(file)
    except PermissionError as error:
        raise StageError(f"no permission to read {path}") from error
    except (InputError, UnicodeDecodeError) as error:
        raise IntegrityError(
            f"{file} is not as this package writes it ({' '.join(str(error).split())}); delete {path} "
            "and run again to rebuild it"
        ) from error
    return manifest


def is_finished(path: Path | str, key: str, **settings: Any) -> bool:
    """True if a whole artifact made from exactly this key lies here and its files are as written.

    Raises `InputError` for one of another key, naming the facts that differ: what is finished is
    continued with the same settings or left alone.
    """
    manifest = read_manifest(path)
    if manifest is None:
        return False
    if manifest.key != key:
        raise OtherSettings(_refusal(Path(path), manifest, key, settings))
    verify(path)
    return True


class OtherSettings(InputError):
    """What lies here was made from other settings or inputs."""


def is_made_from(path: Path | str, inputs: Mapping[str, Any]) -> bool:
    """True if a finished artifact of exactly these inputs lies here; that of others is refused.

    inputs: everything that determines the content, as JSON data with the versions of the procedures
    under `PROCEDURES`; their digest is the artifact's key, and they are among its facts. What an older
    procedure made counts as absent, to be made again. Raises `InputError` with the inputs that differ.
    """
    manifest = read_manifest(path)
    if manifest is None:
        return False
    if manifest.key == digest_json(inputs):
        verify(path)
        return True
    there, asked = flatten(manifest.facts), flatten(json.loads(json.dumps(inputs)))
    differing = [name for name, value in asked.items() if there.get(name) != value]
    if any(name.split(".")[0] == PROCEDURES for name in differing):
        return False
    raise OtherSettings(_refusal(Path(path), manifest, manifest.key, inputs))


def verify(path: Path | str, files: Iterable[str] | None = None) -> Manifest:
    """Check an artifact against its manifest: every file, or those that are about to be read.

    Raises `IntegrityError` naming the file that was changed, is missing or is not the artifact's.

    A whole check also refuses a file that the manifest does not name: loaders pick files up by name.
    """
    path = Path(path)
    manifest = read_manifest(path)
    if manifest is None:
        raise IntegrityError(f"{path} holds no finished artifact (no {MANIFEST})")
    if not manifest.files:
        raise IntegrityError(f"{path / MANIFEST} names no files; delete {path} and run again")
    for name in manifest.files if files is None else files:
        if name not in manifest.files:
            raise IntegrityError(f"{path / name} is not in {MANIFEST}: it was not written with it")
        digest, size = manifest.files[name]
        file = inside(path, name)
        if not plain_file(file):
            raise IntegrityError(f"{file} is missing; delete {path} and run again to rebuild it")
        if file.stat().st_size != size or digest_file(file) != digest:
            seen = digest_file(file)
            raise IntegrityError(
                f"{file} was changed after it was written: sha256 {short(seen)}, manifest says "
                f"{short(digest)}; delete {path} and run again to rebuild it"
            )
    if unnamed := _unnamed(path, manifest):
        raise IntegrityError(
            f"{path / unnamed[0]} is not in {MANIFEST}: it was put there later. Move it elsewhere"
        )
    return manifest


def discard_leftovers(path: Path | str) -> None:
    """Remove what killed runs left of this artifact under temporary names; what is in work stays."""
    path = Path(path)
    ours = re.compile(re.escape(beside(path, TEMPORARY).name) + "-[0-9]+-[0-9a-f]{8}")
    for leftover in sorted(path.parent.iterdir()):
        if ours.fullmatch(leftover.name) and not _in_work(leftover):
            remove(leftover)


def _in_work(leftover: Path) -> bool:
    """Whether a process holds it: who writes a file keeps it locked until it has its name."""
    try:
        descriptor = os.open(leftover, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return not leftover.is_symlink()
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def sync_directory(path: Path) -> None:
    """Make a rename in this folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_replaceable(path: Path) -> None:
    """Refuse to build where something lies that no manifest of ours answers for."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise InputError(f"{path} is no folder of its own (a file or a link): choose another --out")
    if path.exists():
        manifest = read_manifest(path)
        foreign = _unnamed(path, manifest) if manifest else sorted(p.name for p in path.iterdir())
        if foreign:
            raise InputError(
                f"{path} holds files that this command did not write ({', '.join(foreign[:3])}); nothing "
                "there is replaced. Choose another --out"
            )


def _unnamed(path: Path, manifest: Manifest) -> list[str]:
    """Files that the manifest does not name."""
    there = [str(file.relative_to(path)) for file in files_below(path)]
    return [name for name in there if name not in manifest.files and name != MANIFEST]


def _show(value: object) -> str:
    return short(value) if isinstance(value, str) and len(value) == 64 else repr(value)


def _refusal(path: Path, manifest: Manifest, key: str, settings: Mapping[str, Any]) -> str:
    there = flatten(manifest.facts)
    now = flatten(json.loads(json.dumps(dict(settings))))
    shown = [
        f"{name} is {_show(there.get(name))} there, {_show(value)} now"
        for name, value in now.items()
        if there.get(name) != value
    ] or [f"digest {short(manifest.key)} there, {short(key)} now"]
    return (
        f"{path} holds a {manifest.kind} made from other settings or inputs ({'; '.join(shown[:SHOWN])}). "
        "Choose another --out, repeat those settings, or delete that folder"
    )


def _inventory(folder: Path) -> dict[str, tuple[str, int]]:
    files = files_below(folder)
    for file in files:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    return {str(f.relative_to(folder)): (digest_file(f), f.stat().st_size) for f in files}


def temporary_name(path: Path) -> Path:
    """A name beside `path` that no other process or call has."""
    return beside(path, TEMPORARY, f"-{os.getpid()}-{uuid.uuid4().hex[:8]}")


def _existing_parent(path: Path) -> Path:
    return next(parent for parent in [path, *path.resolve().parents] if parent.exists())
