"""What stores lie in a folder, what is in one of them, and files that no manifest answers for; no activations are read."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from probes.activations.files import kind_of
from probes.activations.format import (
    FINISHED,
    KIND,
    MANIFEST,
    PROVENANCE,
    UNFINISHED,
    Manifest,
    read_manifest,
)
from probes.activations.origin import Origin
from probes.activations.place import read_finished, read_history, unnamed
from probes.foundation.artifact import disk_errors
from probes.foundation.digest import short
from probes.foundation.errors import InputError, IntegrityError
from probes.foundation.outputs import claimed
from probes.foundation.untrusted import read_json
from probes.models.sites import parse_site

COLUMNS = (
    "store",
    "state",
    "model",
    "weights",
    "sequences",
    "rows",
    "positions",
    "dtype",
    "sites",
    "size",
)


@dataclasses.dataclass(frozen=True)
class Contents:
    """One store in tables. parts: what each collection added. groups: the units of work and of
    repair. history: the collections, oldest first.
    """

    parts: pd.DataFrame
    groups: pd.DataFrame
    history: pd.DataFrame


def list_stores(folder: Path | str) -> pd.DataFrame:
    """One row per store at or below a folder, finished or not, in order of their paths.

    state: "finished", how far a collection under way or interrupted is, or why it cannot be read.
    Raises `InputError` where there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"no folder at {folder}")
    rows = [{**_row(path), "store": str(path)} for path in _stores(folder)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).fillna("")


def is_finished(path: Path | str) -> bool:
    """Whether a directory is a store with a manifest."""
    return _is_manifest(Path(path) / MANIFEST)


def describe(path: Path | str) -> Contents:
    """What a finished store holds; its files need not be whole."""
    path = Path(path)
    manifest = read_finished(path)
    parts = [
        {
            "part": number,
            "sequences": part.n_sequences,
            "rows": part.n_rows,
            "groups": len(part.groups),
            "labels": part.prompts.file,
            "index": part.index.file,
        }
        for number, part in enumerate(manifest.parts)
    ]
    groups = [
        {
            "group": number,
            "part": part,
            "sequences": group.n_sequences,
            "rows": group.n_rows,
            "tokens": group.n_tokens,
            "sites": _span(manifest, group.sites),
            "shards": len(group.shards),
            "size": _size(sum(shard.bytes for shard in group.shards)),
            "made on": ", ".join(
                dict.fromkeys(manifest.makers[shard.maker].device for shard in group.shards)
            ),
        }
        for number, (part, group) in enumerate(
            (place, group) for place, part in enumerate(manifest.parts) for group in part.groups
        )
    ]
    return Contents(pd.DataFrame(parts), pd.DataFrame(groups), _history(path, manifest))


def _history(path: Path, manifest: Manifest) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "when": line.provenance.get("created"),
                "new sequences": line.n_new_sequences,
                "shards made": line.n_shards_made,
                "sites": _span(manifest, frozenset(line.sites)),
                "machine": line.provenance.get("machine"),
            }
            for line in read_history(path).collections
        ],
        columns=["when", "new sequences", "shards made", "sites", "machine"],
    )


def _stores(folder: Path) -> Iterator[Path]:
    """Directories that are stores; what lies inside one is its own affair."""
    for path, folders, _ in os.walk(folder):
        place = Path(path)
        if is_finished(place) or (place / UNFINISHED).is_file():
            folders.clear()
            yield place
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def _is_manifest(file: Path) -> bool:
    """Whether this is a manifest of ours, of whatever version; others use this name too."""
    try:
        found = read_json(file)
    except InputError:
        return False
    return isinstance(found, dict) and found.get("kind") == KIND


def _row(path: Path) -> dict[str, str]:
    if not (path / MANIFEST).is_file():
        return _unfinished(path)
    try:
        manifest = read_finished(path)
    except IntegrityError as error:
        return {"state": f"unreadable: {error}"}
    n_done = _n_done(path)
    origin = manifest.origin
    return {
        "state": f"finished; {n_done} shards of a further collection" if n_done else "finished",
        "model": manifest.model,
        "weights": short(origin.weights_digest),
        "sequences": f"{manifest.n_sequences:,}",
        "rows": f"{manifest.n_rows:,}",
        "positions": origin.positions,
        "dtype": origin.dtype,
        "sites": _span(manifest, frozenset(manifest.widths)),
        "size": _size(manifest.n_bytes),
    }


def _unfinished(path: Path) -> dict[str, str]:
    files = [file for file in path.iterdir() if file.is_file()]
    n_planned = sum(kind_of(file.name) == "layout" for file in files)
    row = {
        "state": f"unfinished: {_n_done(path)} shards of {n_planned} groups done",
        "size": _size(sum(file.stat().st_size for file in files)),
    }
    try:
        origin = Origin.from_file(path / UNFINISHED)
    except InputError as error:
        return {**row, "state": f"unreadable: {error}"}
    return {
        **row,
        "weights": short(origin.weights_digest),
        "positions": origin.positions,
        "dtype": origin.dtype,
    }


def _n_done(path: Path) -> int:
    """Shards that a collection has finished and no manifest names yet."""
    return len(list(path.glob(f"shard-*{FINISHED}")))


def _span(manifest: Manifest, sites: frozenset[str]) -> str:
    names = sorted(sites, key=lambda name: parse_site(name, manifest.n_layers).order)
    if len(names) > 2:
        return f"{names[0]} to {names[-1]} ({len(names)})"
    return ", ".join(names)


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:,.1f} MiB"


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
