"""Several stores of one origin as one: other sites of the same sequences, or other sequences."""

import errno
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from probes.activations.files import check_digest
from probes.activations.format import (
    PROVENANCE,
    Collection,
    FileRecord,
    History,
    Maker,
    Manifest,
    PartRecord,
    ShardRecord,
)
from probes.activations.index import find, read_index
from probes.activations.place import check_origin, read_finished, read_history
from probes.activations.publication import publish
from probes.activations.store import ActivationStore
from probes.foundation.artifact import (
    discard_leftovers,
    disk_errors,
    sync_directory,
    temporary_folder,
    write_text,
)
from probes.foundation.errors import InputError
from probes.foundation.progress import progress
from probes.foundation.provenance import provenance

# What a file system says that cannot link: another device, none at all, too many, not allowed.
NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EACCES)


def merge(out: Path | str, paths: Sequence[Path | str]) -> ActivationStore:
    """One store at `out` with all that these stores hold; they stay as they are.

    Parts of the same sequences are joined, so that they have the sites of both; parts of other
    sequences follow each other, in the order given. Files are linked where the file system can,
    else copied, and every byte is checked on the way. `out` appears whole or not at all.
    Raises `InputError` where something lies at `out`, for stores of different origin, and for
    parts that share some of their sequences but are not cut alike; `IntegrityError` for damage.
    """
    out, sources = Path(out), [Path(path) for path in paths]
    if len(sources) < 2:
        raise InputError("a merge takes two stores or more")
    _refuse_existing(out)
    manifests = [read_finished(path) for path in sources]
    merged, origins = _join(sources, manifests)
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        discard_leftovers(out)
        with temporary_folder(out) as temporary:
            for record in progress(merged.files, "merge activations"):
                _bring(origins[record.sha256], temporary, record)
            _write_manifest(temporary, merged, sources)
            _refuse_existing(out)
            temporary.rename(out)
            sync_directory(out.parent)
    return ActivationStore.open(out)


def _join(
    sources: Sequence[Path], manifests: Sequence[Manifest]
) -> tuple[Manifest, dict[str, Path]]:
    """What the merged store will be, without a key yet, and which store has each file, by sha256."""
    makers: list[Maker] = []
    widths: dict[str, tuple[int, ...]] = {}
    parts: list[PartRecord] = []
    known: list[np.ndarray] = []
    origins: dict[str, Path] = {}
    for path, manifest in zip(sources, manifests, strict=True):
        check_origin(manifests[0].origin, manifest.origin, f"{sources[0]} and {path}")
        makers += [maker for maker in manifest.makers if maker not in makers]
        widths |= manifest.widths
        for record in manifest.files:
            origins.setdefault(record.sha256, path)
        for part in manifest.parts:
            part = _with_makers(part, manifest.makers, makers)
            place = _same_part(parts, part)
            if place is not None:
                parts[place] = _joined(parts[place], part)
                continue
            check_digest(path, part.index)
            ids = read_index(path, [part]).ids
            _refuse_shared(path, ids, known)
            known.append(ids)
            n_groups = sum(len(each.groups) for each in parts)
            parts.append(part.model_copy(update={"first_group": n_groups}))
    merged = manifests[0].model_copy(
        update={"key": "", "makers": tuple(makers), "widths": widths, "parts": tuple(parts)}
    )
    return merged, origins


def _with_makers(part: PartRecord, own: Sequence[Maker], joint: Sequence[Maker]) -> PartRecord:
    """The part with the makers of its shards counted in the joint list."""
    groups = tuple(
        group.model_copy(
            update={
                "shards": tuple(
                    shard.model_copy(update={"maker": joint.index(own[shard.maker])})
                    for shard in group.shards
                )
            }
        )
        for group in part.groups
    )
    return part.model_copy(update={"groups": groups})


def _same_part(parts: Sequence[PartRecord], part: PartRecord) -> int | None:
    """Number of the part with the same sequences in the same groups, if there is one."""
    own = _cut(part)
    return next((number for number, other in enumerate(parts) if _cut(other) == own), None)


def _cut(part: PartRecord) -> tuple[str, ...]:
    return (part.index.sha256, *(group.layout.sha256 for group in part.groups))


def _joined(first: PartRecord, second: PartRecord) -> PartRecord:
    groups = tuple(
        one.model_copy(update={"shards": _needed((*one.shards, *other.shards))})
        for one, other in zip(first.groups, second.groups, strict=True)
    )
    return first.model_copy(update={"groups": groups})


def _needed(shards: Iterable[ShardRecord]) -> tuple[ShardRecord, ...]:
    """Shards that together have all sites: of two that have the same, the first; large ones first."""
    kept: list[ShardRecord] = []
    for shard in sorted(shards, key=lambda shard: -len(shard.sites)):
        if set(shard.sites) - {site for other in kept for site in other.sites}:
            kept.append(shard)
    return tuple(kept)


def _refuse_shared(path: Path, ids: np.ndarray, known: Sequence[np.ndarray]) -> None:
    if not known:
        return
    n_shared = int((find(np.concatenate(known), ids) >= 0).sum())
    if n_shared:
        raise InputError(
            f"{n_shared} of {len(ids)} sequences of {path} are already there, but in another order "
            "or in groups cut otherwise, so that their shards do not fit together. Collect what is "
            "lacking into one of the stores instead: only the difference is computed"
        )


def _bring(source: Path, folder: Path, record: FileRecord) -> None:
    """Link or copy one checked file."""
    check_digest(source, record)
    try:
        os.link(source / record.file, folder / record.file)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copyfile(source / record.file, folder / record.file)
        with (folder / record.file).open("rb") as file:
            os.fsync(file.fileno())
        check_digest(folder, record)


def _write_manifest(folder: Path, merged: Manifest, sources: Iterable[Path]) -> Manifest:
    """The histories of all stores, with the merge as their last line, and the manifest."""
    past = [line for path in sources for line in read_history(path).collections]
    unique = [line for number, line in enumerate(past) if line not in past[:number]]
    unique.sort(key=lambda line: str(line.provenance.get("created", "")))
    write_text(folder / PROVENANCE, History(collections=tuple(unique)).to_json())
    made = Collection(
        provenance=provenance(), n_new_sequences=0, n_shards_made=0, sites=tuple(merged.widths)
    )
    return publish(folder, merged, made)


def _refuse_existing(out: Path) -> None:
    if os.path.lexists(out):
        raise InputError(f"{out} is there already; a merge makes a new store. Choose another place")
