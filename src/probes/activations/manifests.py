"""Manifests of stores that need not be whole: read to check, to mend, to copy and to compare."""

from pathlib import Path

from probes.activations.files import check_names
from probes.activations.format import PROVENANCE, UNFINISHED, History, Manifest, read_manifest
from probes.activations.origin import Origin
from probes.foundation.errors import InputError, IntegrityError
from probes.foundation.folders import plain_file


def read_finished(path: Path) -> Manifest:
    """The manifest of a finished store, whatever became of its files.

    Raises `InputError` where there is no finished store, `IntegrityError` for an edited manifest.
    """
    manifest = read_manifest(path)
    if manifest is None:
        state = (
            "its collection was interrupted; run the same collection again to finish it"
            if (path / UNFINISHED).exists()
            else "there is no manifest.json"
        )
        raise InputError(f"no finished activation store at {path}: {state}")
    check_names(manifest, path)
    return manifest


def read_history(path: Path) -> History:
    """The history of a store; an empty one where it is absent or damaged, as it is no content."""
    try:
        return History.from_file(path / PROVENANCE) if plain_file(path / PROVENANCE) else History()
    except (InputError, IntegrityError, UnicodeDecodeError):
        return History()


def check_origin(first: Origin, second: Origin, between: str) -> None:
    """Refuse two origins that differ, field by field; `between` says whose they are."""
    if first.digest == second.digest:
        return
    raise InputError(
        f"{between} are activations of different origin and cannot be one store. They differ in "
        f"{first.told_apart(second, '{} and {}')}"
    )
