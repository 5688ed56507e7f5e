"""A directory on the way to becoming a store: whose it is, what it will be, what may be in it."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from probes.activations.format import UNFINISHED
from probes.activations.spec import Spec
from probes.activations.store import ActivationStore, read_manifest
from probes.foundation.artifact import TEMPORARY, write_text
from probes.foundation.digest import short
from probes.foundation.errors import InputError, StageError


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Hold the directory against a second collection; the claim ends with the process."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; a store is a directory. Choose another place")
    path.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StageError(f"another process is collecting into {path}; wait for it") from None
        yield
    finally:
        os.close(descriptor)


def is_finished(path: Path, spec: Spec) -> bool:
    """Whether this very store lies here; prepares an empty place, and refuses one that is taken.

    Raises `InputError` with both keys for another store, finished or not, and for a directory that
    holds anything else; `IntegrityError` for a finished store that was damaged.
    """
    manifest = read_manifest(path)
    if manifest is not None:
        _refuse_other(path, manifest.made_from, spec)
        ActivationStore.open(path).verify()
        return True
    if (path / UNFINISHED).exists():
        _refuse_other(path, Spec.from_file(path / UNFINISHED), spec)
        return False
    foreign = [file.name for file in path.iterdir() if not file.name.startswith(TEMPORARY)]
    if foreign:
        raise InputError(
            f"{path} is not an activation store and not empty ({', '.join(sorted(foreign)[:3])}); "
            "choose another directory"
        )
    write_text(path / UNFINISHED, spec.to_json())
    return False


def clean(path: Path) -> None:
    """Remove what only a collection under way needs, now that the manifest is there."""
    for pattern in (f"{TEMPORARY}*", "*.finished.json", UNFINISHED):
        for file in path.glob(pattern):
            file.unlink()


def _refuse_other(path: Path, there: Spec, asked: Spec) -> None:
    if there.digest == asked.digest:
        return
    differing = "; ".join(
        f"{name}: there {_shorten(theirs)}, asked {_shorten(mine)}"
        for name, (theirs, mine) in there.differences(asked).items()
    )
    raise InputError(
        f"{path} holds activations with another key: there {there.digest}, asked {asked.digest}. "
        f"They differ in {differing}. Choose another directory, or delete this one."
    )


def _shorten(value: object) -> object:
    return short(value) if isinstance(value, str) and len(value) == 64 else value
