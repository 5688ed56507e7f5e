"""Files in a store that no manifest answers for: what interrupted collections left, and strangers."""

import dataclasses
from pathlib import Path

import pandas as pd

from probes.activations.files import kind_of
from probes.activations.format import PROVENANCE, UNFINISHED, Manifest, read_manifest
from probes.activations.place import unnamed
from probes.foundation.artifact import disk_errors
from probes.foundation.errors import InputError
from probes.foundation.outputs import claimed

FOREIGN = "not of a store; left alone"


@dataclasses.dataclass(frozen=True)
class Leftover:
    """One file. kind: what it was for; None for one that is not a store's and stays."""

    file: str
    n_bytes: int
    kind: str | None


@dataclasses.dataclass(frozen=True, repr=False)
class Garbage:
    """What lies in a store unnamed. is_finished: whether there is a manifest; where there is none,
    the leftovers are the work of an interrupted collection. is_deleted: whether they are gone.
    """

    path: Path
    is_finished: bool
    files: tuple[Leftover, ...]
    is_deleted: bool = False

    @property
    def own(self) -> tuple[Leftover, ...]:
        """What may be deleted."""
        return tuple(each for each in self.files if each.kind is not None)

    @property
    def foreign(self) -> tuple[Leftover, ...]:
        return tuple(each for each in self.files if each.kind is None)

    @property
    def n_bytes(self) -> int:
        return sum(each.n_bytes for each in self.own)

    @property
    def table(self) -> pd.DataFrame:
        """One row per file."""
        return pd.DataFrame(
            [
                {"file": each.file, "bytes": each.n_bytes, "what": each.kind or FOREIGN}
                for each in self.files
            ],
            columns=["file", "bytes", "what"],
        )

    @property
    def summary(self) -> str:
        done = "deleted" if self.is_deleted else "to delete"
        told = f"{self.path}: {len(self.own)} files {done}, {self.n_bytes / 2**20:.1f} MiB"
        if self.foreign:
            told += f"; {len(self.foreign)} that are not of a store stay"
        if not self.is_finished and self.own:
            lost = "is lost" if self.is_deleted else "would be lost"
            told += (
                f". No collection was ever finished here: the interrupted work {lost}; the same "
                "collection would go on from it"
            )
        return told

    def __repr__(self) -> str:
        return "\n".join([self.summary, *(f"{each.file}: {each.kind}" for each in self.files)])


def find_garbage(path: Path | str) -> Garbage:
    """Files that no manifest names. While a collection is under way, its shards are among them.

    Raises `InputError` for a directory that is neither a store nor one begun.
    """
    path = Path(path)
    manifest = read_manifest(path)
    if manifest is None and not (path / UNFINISHED).is_file():
        raise InputError(
            f"{path} is not an activation store, finished or not; nothing in it is touched"
        )
    return Garbage(path, manifest is not None, tuple(_leftovers(path, manifest)))


def delete_garbage(path: Path | str) -> Garbage:
    """Delete what `find_garbage` finds, except what is not of a store; waits for other writers.

    Returns what was there. Without a finished collection, the interrupted work is lost.
    """
    path = Path(path)
    find_garbage(path)
    with disk_errors(path, "deleting in"), claimed(path):
        found = find_garbage(path)
        # The mark last: an interrupted deletion leaves a directory that is still known as begun.
        for leftover in sorted(found.own, key=lambda each: each.file == UNFINISHED):
            (path / leftover.file).unlink()
    return dataclasses.replace(found, is_deleted=True)


def _leftovers(path: Path, manifest: Manifest | None) -> list[Leftover]:
    files = unnamed(path, manifest)
    if manifest is None and (path / PROVENANCE).is_file():
        files = sorted([*files, path / PROVENANCE])
    return [
        Leftover(
            file=file.name,
            n_bytes=file.lstat().st_size,
            kind=kind_of(file.name) if file.is_file() or file.is_symlink() else None,
        )
        for file in files
    ]
