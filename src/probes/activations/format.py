"""The store's files and their fields, as documented in docs/reference/activation-store.md."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from probes.activations.origin import Origin
from probes.foundation.config import Config
from probes.foundation.digest import digest_json
from probes.foundation.errors import InputError, IntegrityError
from probes.foundation.folders import plain_file
from probes.foundation.untrusted import read_object

SCHEMA_VERSION = 3
KIND = "activations"
MANIFEST = "manifest.json"
PROVENANCE = "provenance.json"
UNFINISHED = "unfinished.json"
FINISHED = ".finished.json"
INDEX_TENSORS = ("sequence_id", "group", "first_row", "n_rows", "n_tokens", "n_prompt_tokens")
VERSIONED = ("probes", "torch", "transformers", "tokenizers", "safetensors")


class FileRecord(Config):
    """A file with what proves it whole."""

    file: str
    sha256: str
    bytes: int


class Maker(Config):
    """What computed a shard, beside the origin: other makers round differently.

    token_budget: padded tokens per forward pass. n_threads: of torch on a CPU; 0 elsewhere.
    """

    versions: dict[str, str]
    device: str
    n_threads: int
    token_budget: int


class ShardRecord(FileRecord):
    """One file of activations: some sites of one group.

    sites: in the order of the file. starts: byte at which the rows of each begin. checks: xxh3_64 of each site's bytes, in hexadecimal, cheap
        enough to be compared whenever a whole site is read. maker: index into the makers.
    """

    sites: tuple[str, ...]
    starts: tuple[int, ...]
    checks: tuple[str, ...]
    maker: int


class GroupRecord(Config):
    """Sequences that are computed, written and repaired together."""

    n_sequences: int
    n_rows: int
    n_tokens: int
    layout: FileRecord
    shards: tuple[ShardRecord, ...]

    @property
    def sites(self) -> frozenset[str]:
        return frozenset(site for shard in self.shards for site in shard.sites)


class PartRecord(Config):
    """What one collection added: sequences in the order in which they were asked for.

    prompts: their labels, as a table. index: where in the groups the rows of each of them lie.
    first_group: number of its first group, counted over the whole store.
    """

    n_sequences: int
    n_rows: int
    first_group: int
    prompts: FileRecord
    index: FileRecord
    groups: tuple[GroupRecord, ...]


class Manifest(Config):
    """What a store is; replaced whole, and last, so that what it names is there."""

    schema_version: int = SCHEMA_VERSION
    kind: str = KIND
    key: str
    origin: Origin
    model: str
    n_layers: int
    widths: dict[str, tuple[int, ...]]
    makers: tuple[Maker, ...]
    parts: tuple[PartRecord, ...]

    @property
    def groups(self) -> list[GroupRecord]:
        return [group for part in self.parts for group in part.groups]

    @property
    def n_sequences(self) -> int:
        return sum(part.n_sequences for part in self.parts)

    @property
    def n_rows(self) -> int:
        return sum(part.n_rows for part in self.parts)

    @property
    def files(self) -> list[FileRecord]:
        """Every file that this manifest answers for."""
        return [
            record
            for part in self.parts
            for record in (
                part.prompts,
                part.index,
                *(f for group in part.groups for f in (group.layout, *group.shards)),
            )
        ]

    @property
    def n_bytes(self) -> int:
        return sum(record.bytes for record in self.files)


class Finished(Config):
    """The sidecar of a shard while a collection is under way: what made it, and what it must be."""

    maker: Maker
    shard: ShardRecord


class Collection(Config):
    """One line of the history of a store, in `provenance.json`; not part of its content."""

    provenance: dict[str, Any]
    n_new_sequences: int
    n_shards_made: int
    sites: tuple[str, ...]


class History(Config):
    """Every collection that changed this store, oldest first."""

    collections: tuple[Collection, ...] = ()


def manifest_key(
    origin: Origin, widths: dict[str, tuple[int, ...]], parts: Iterable[PartRecord]
) -> str:
    """sha256 over the origin and over every record of the store, so that no edit goes unseen."""
    contents = [part.model_dump(mode="json") for part in parts]
    shapes = {name: list(width) for name, width in widths.items()}
    return digest_json({"origin": origin.digest, "widths": shapes, "parts": contents})


def read_manifest(path: Path) -> Manifest | None:
    """The manifest of a store, or None where there is none.

    Raises `IntegrityError` for one that was edited, or that another version of the format wrote.
    """
    file = path / MANIFEST
    if not plain_file(file):
        return None
    try:
        found = read_object(file)
    except InputError as error:
        raise IntegrityError(str(error)) from error
    kind, version = found.get("kind"), found.get("schema_version")
    if (kind, version) != (KIND, SCHEMA_VERSION):
        raise IntegrityError(
            f"{file} is kind {kind!r}, schema version {version!r}; this package reads "
            f"{KIND!r}, version {SCHEMA_VERSION}. Collect again with this version of it."
        )
    try:
        manifest = Manifest.from_file(file)
    except InputError as error:
        raise IntegrityError(str(error)) from error
    expected = manifest_key(manifest.origin, manifest.widths, manifest.parts)
    if manifest.key != expected:
        raise IntegrityError(
            f"{file} was edited: its key {manifest.key[:12]} is not the digest of its contents, "
            f"{expected[:12]}"
        )
    return manifest


def with_shards(
    parts: Sequence[PartRecord], shards: Callable[[int, GroupRecord], Sequence[ShardRecord]]
) -> tuple[PartRecord, ...]:
    """The parts with other shards: what `shards` says, for each group and its number in the store."""
    return tuple(
        part.model_copy(
            update={
                "groups": tuple(
                    group.model_copy(update={"shards": tuple(shards(number, group))})
                    for number, group in enumerate(part.groups, start=part.first_group)
                )
            }
        )
        for part in parts
    )
