"""The directory of a store: finished, whatever became of its files, or on the way: whose it is, what may be in it."""

from pathlib import Path

from probes.activations.files import check_digest, check_names, check_size, has_size, kind_of
from probes.activations.format import (
    FINISHED,
    MANIFEST,
    PROVENANCE,
    UNFINISHED,
    GroupRecord,
    History,
    Manifest,
    ShardRecord,
    read_manifest,
    with_shards,
)
from probes.activations.origin import Origin
from probes.foundation.artifact import TEMPORARY, write_text
from probes.foundation.errors import InputError, IntegrityError
from probes.foundation.folders import plain_file, remove


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


def prepare(path: Path, origin: Origin) -> Manifest | None:
    """The manifest of the store that lies here, or None in an empty place, which is now taken.

    Shards that are missing or cut are left out of it, so that they count as lacking. Raises
    `InputError` with the fields that differ for a store of another origin, finished or with finished
    shards, and for a directory that holds anything else; `IntegrityError` for a store whose tables
    or layouts are damaged.
    """
    manifest = read_manifest(path)
    if manifest is not None:
        check_names(manifest, path)
        _refuse_other(path, manifest.origin, origin)
        for part in manifest.parts:
            check_digest(path, part.index)
            check_size(path, part.prompts)
            for group in part.groups:
                check_size(path, group.layout)
        return _without_cut_shards(path, manifest)
    if (path / UNFINISHED).exists():
        there = Origin.from_file(path / UNFINISHED)
        if there.digest == origin.digest:
            return None
        if any(path.glob(f"*{FINISHED}")):
            _refuse_other(path, there, origin)
        for file in path.iterdir():  # nothing was computed for it yet: the place is free
            if kind_of(file.name) is not None:
                file.unlink()
    foreign = [file.name for file in path.iterdir() if not file.name.startswith(TEMPORARY)]
    if foreign:
        raise InputError(
            f"{path} is not an activation store and not empty ({', '.join(sorted(foreign)[:3])}); "
            "choose another directory"
        )
    write_text(path / UNFINISHED, origin.to_json())
    return None


def _without_cut_shards(path: Path, manifest: Manifest) -> Manifest:
    """The manifest without the shards that are gone or shorter; all others as they are."""
    cut = {
        shard.file
        for group in manifest.groups
        for shard in group.shards
        if not has_size(path, shard)
    }
    if not cut:
        return manifest

    def kept(number: int, group: GroupRecord) -> list[ShardRecord]:
        return [shard for shard in group.shards if shard.file not in cut]

    return manifest.model_copy(update={"parts": with_shards(manifest.parts, kept)})


def clean(path: Path, manifest: Manifest) -> None:
    """Remove what only a collection under way needs, now that the manifest names its shards.

    Shards of other interrupted collections stay, so that these can go on; `gc` removes them.
    """
    (path / UNFINISHED).unlink(missing_ok=True)
    for leftover in path.glob(f"{TEMPORARY}*"):
        remove(leftover)
    named = {record.file for record in manifest.files}
    for sidecar in path.glob(f"*{FINISHED}"):
        if sidecar.name.removesuffix(FINISHED) in named:
            sidecar.unlink()


def unnamed(path: Path, manifest: Manifest | None) -> list[Path]:
    """Files that no manifest answers for: leftovers of interrupted collections, or foreign ones."""
    named = {MANIFEST, PROVENANCE} | {r.file for r in (manifest.files if manifest else ())}
    return sorted(file for file in path.iterdir() if file.name not in named)


def _refuse_other(path: Path, there: Origin, asked: Origin) -> None:
    if there.digest == asked.digest:
        return
    raise InputError(
        f"{path} holds activations of another origin: there {there.digest}, asked {asked.digest}. "
        f"They differ in {there.told_apart(asked, 'there {}, asked {}')}. Choose another directory, or delete this one."
    )
