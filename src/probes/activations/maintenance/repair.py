"""Tables and layouts made again: from each other, or from the prompts that they were made from."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from probes.activations import format as records
from probes.activations.compute import Job, compute
from probes.activations.files import write_small, write_tensors
from probes.activations.format import (
    FileRecord,
    GroupRecord,
    Maker,
    Manifest,
    PartRecord,
    ShardRecord,
    with_shards,
)
from probes.activations.index import Index
from probes.activations.labels import labelling, read_labels
from probes.activations.layout import Layout, grouping_order, lay_out
from probes.activations.maintenance.verification import Damage, damage_table, find_damage
from probes.activations.origin import Origin, is_one_each
from probes.activations.place import read_finished
from probes.activations.publication import make_maker, publish
from probes.activations.sequences import PIECE, TokenSequence, pieces, stream, tokenise
from probes.foundation.artifact import disk_errors
from probes.foundation.digest import digest_bytes
from probes.foundation.errors import InputError
from probes.foundation.outputs import claimed
from probes.foundation.procedures import VERSIONS
from probes.foundation.progress import progress
from probes.foundation.provenance import provenance
from probes.models.loading import Model
from probes.models.speed import with_threads
from probes.prompts.records import Prompt

Sequences = Mapping[bytes, TokenSequence]


@dataclasses.dataclass(frozen=True)
class Rebuilt:
    """A part with its tables as they are now, what was made again, and what was not, with reasons."""

    part: PartRecord
    made: tuple[Damage, ...]
    left: tuple[Damage, ...]


def read_sequences(
    model: Model,
    origin: Origin,
    prompts: Iterable[Prompt] | Path | str,
    completions: Iterable[str] | None,
) -> dict[bytes, TokenSequence]:
    """Given prompts by the id of their sequence, in order; all of them are held in memory.

    Raises `InputError` for a tokenizer or chat template other than the store's.
    """
    mine = model.identity
    for name in ("tokenizer_digest", "template_digest"):
        there, here = getattr(origin, name), getattr(mine, name)
        if there != here:
            raise InputError(
                f"{model.name} would turn the prompts into other tokens: {name} of the store is "
                f"{there}, of the model {here}. Give the checkpoint that made the store"
            )
    found: dict[bytes, TokenSequence] = {}
    for piece, texts in pieces(stream(prompts), completions):
        for sequence in tokenise(
            model, origin, piece, texts, np.arange(len(piece)), allow_missing=True
        ):
            found[sequence.id] = sequence
    return found


def rebuild(
    path: Path,
    part: PartRecord,
    origin: Origin,
    damaged: Iterable[Damage],
    sequences: Sequences | None,
) -> Rebuilt:
    """Make the damaged tables and layouts of one part again, as far as what is there allows.

    Layouts and labels need the prompts; the index follows from labels and layouts. Layouts and
    index are only accepted with the recorded sha256; labels are covered by the ids of the prompts.
    Of sequences that the model wrote itself, layouts and labels are not to be had from prompts.
    """
    left = {damage.holding.record.file: damage for damage in damaged}
    made: list[Damage] = []
    for damage in _in_order(left.values()):
        record = damage.holding.record
        try:
            if origin.sampling is not None and _kind(damage) != "index":
                raise InputError("it holds what the model drew, which no prompts give")
            match _kind(damage):
                case "layout":
                    data = _layout(path, part, origin.positions, damage, left, sequences)
                    _write(path, record, data)
                case "prompts":
                    table = _labels(path, _order(path, part, left, sequences), sequences)
                    part = part.model_copy(update={"prompts": table})
                case _:
                    _write(path, record, _index(path, part, origin, left))
        except InputError as error:
            fault = f"{damage.fault}; not made again: {error}"
            left[record.file] = dataclasses.replace(damage, fault=fault)
        else:
            made.append(left.pop(record.file))
    return Rebuilt(part, tuple(made), tuple(left.values()))


def _in_order(damaged: Iterable[Damage]) -> list[Damage]:
    """What others are made from first."""
    return sorted(damaged, key=lambda damage: ["layout", "prompts", "index"].index(_kind(damage)))


def _kind(damage: Damage) -> str:
    return damage.holding.kind


@dataclasses.dataclass(frozen=True)
class _Order:
    """The sequences of a part as they joined it, with their numbers of tokens."""

    ids: list[bytes]
    lengths: np.ndarray


def _order(
    path: Path, part: PartRecord, damaged: Mapping[str, Damage], sequences: Sequences | None
) -> _Order:
    """From the index, or else the labels, or else the layouts and the order of the prompts."""
    if part.index.file not in damaged:
        index = Index.from_file(path / part.index.file)
        return _Order([row.tobytes() for row in index.sequence_id], index.n_tokens)
    if part.prompts.file not in damaged:
        table = read_labels([path / part.prompts.file])
        return _Order(_ids(table), table["n_tokens"].to_numpy())
    if any(group.layout.file in damaged for group in part.groups):
        raise InputError("index, labels and layouts of this part are all damaged")
    known = {row.tobytes() for layout in _layouts(path, part) for row in layout.sequence_id}
    ids = [id for id in _given(sequences) if id in known]
    chosen = _chosen(sequences, ids if len(ids) == len(known) else list(known))
    if digest_bytes(_index_of(path, part, ids)) != part.index.sha256:
        raise InputError("the prompts are given in another order than that of the collection")
    return _Order(ids, np.array([sequence.extent.n_tokens for sequence in chosen]))


def _layout(
    path: Path,
    part: PartRecord,
    positions: str,
    damage: Damage,
    damaged: Mapping[str, Damage],
    sequences: Sequences | None,
) -> bytes:
    order = _order(path, part, damaged, sequences)
    edges = np.cumsum([group.n_sequences for group in part.groups])[:-1]
    groups = np.split(grouping_order(order.lengths, is_one_each(positions)), edges)
    number = [group.layout.file for group in part.groups].index(damage.holding.record.file)
    members = _chosen(sequences, [order.ids[i] for i in groups[number]])
    return lay_out(members, positions).to_bytes()


def _labels(path: Path, order: _Order, sequences: Sequences | None) -> FileRecord:
    """Written as a collection writes them, so that the same prompts give the same bytes."""
    chosen = _chosen(sequences, order.ids)
    with labelling(path) as labels:
        for start in range(0, len(chosen), PIECE):
            labels.append(chosen[start : start + PIECE])
        return labels.finish()


def _index(path: Path, part: PartRecord, origin: Origin, damaged: Mapping[str, Damage]) -> bytes:
    sources = [group.layout for group in part.groups]
    if origin.sampling is None:
        sources = [part.prompts, *sources]
    if lacking := [record.file for record in sources if record.file in damaged]:
        raise InputError(f"it follows from labels and layouts, and {lacking[0]} is damaged")
    if origin.sampling is None:
        ids = _ids(read_labels([path / part.prompts.file]))
    else:  # the order of drawing is that of the layout
        ids = [row.tobytes() for layout in _layouts(path, part) for row in layout.sequence_id]
    return _index_of(path, part, ids)


def _index_of(path: Path, part: PartRecord, ids: list[bytes]) -> bytes:
    """The index of these sequences in this order, from the layouts, which are all whole."""
    place = {id: number for number, id in enumerate(ids)}

    def placed() -> Iterator[tuple[np.ndarray, Layout]]:
        for layout in _layouts(path, part):
            own = [row.tobytes() for row in layout.sequence_id]
            if absent := [id for id in own if id not in place]:
                raise InputError(f"{len(absent)} sequences of its layouts are not among its labels")
            yield np.array([place[id] for id in own]), layout

    sequence_id = np.frombuffer(b"".join(ids), dtype=np.uint8).reshape(-1, 32)
    return Index.of(sequence_id, placed()).to_bytes()


def _ids(table: pd.DataFrame) -> list[bytes]:
    """Ids of labelled sequences, as `sequence_id` forms them."""
    return [
        bytes.fromhex(own)
        if pd.isna(text)
        else hashlib.sha256(bytes.fromhex(own) + text.encode()).digest()
        for own, text in zip(table["prompt_id"], table["completion"], strict=True)
    ]


def _layouts(path: Path, part: PartRecord) -> Iterable[Layout]:
    return (Layout.from_file(path / group.layout.file) for group in part.groups)


def _given(sequences: Sequences | None) -> Sequences:
    if sequences is None:
        raise InputError("it follows from the prompts that were collected; give them")
    return sequences


def _chosen(sequences: Sequences | None, ids: list[bytes]) -> list[TokenSequence]:
    given = _given(sequences)
    if absent := sum(id not in given for id in ids):
        raise InputError(f"{absent} of its {len(ids)} sequences are not among the given prompts")
    return [given[id] for id in ids]


def _write(path: Path, record: FileRecord, data: bytes) -> None:
    """Write a file that is known by its digest, if these are its bytes."""
    if (seen := digest_bytes(data)) != record.sha256:
        raise InputError(f"what was made has sha256 {seen}, the manifest says {record.sha256}")
    write_small(path / record.file, data)


@dataclasses.dataclass(frozen=True, repr=False)
class Repaired:
    """What a repair came to. restored: in the very bytes that were lost. remade: with other bytes,
    as the numbers are rounded otherwise by another machine or library, or in reading what the model
    once wrote; the manifest has their new digests. left: as they were, and why.
    """

    path: Path
    restored: tuple[Damage, ...]
    remade: tuple[Damage, ...]
    left: tuple[Damage, ...]

    @property
    def is_whole(self) -> bool:
        return not self.left

    @property
    def table(self) -> pd.DataFrame:
        """One row per file that was damaged, with what became of it."""
        named = {"restored": self.restored, "remade": self.remade, "left": self.left}
        tables = [damage_table(each).assign(outcome=name) for name, each in named.items()]
        return pd.concat(tables, ignore_index=True)

    @property
    def summary(self) -> str:
        if not (self.restored or self.remade or self.left):
            return f"{self.path}: nothing is damaged"
        told = [f"{len(self.restored)} files restored byte for byte"]
        if self.remade:
            told.append(
                f"{len(self.remade)} remade with other bytes (rounded otherwise here than where they "
                "were made; the manifest has the new digests)"
            )
        if self.left:
            told.append(f"{len(self.left)} still damaged")
        return f"{self.path}: {', '.join(told)}"

    def __repr__(self) -> str:
        return "\n".join([self.summary, *map(str, self.left)])


def repair(
    path: Path | str,
    model: Model,
    prompts: Iterable[Prompt] | Path | str | None = None,
    completions: Iterable[str] | None = None,
) -> Repaired:
    """Make the damaged files of a store again and touch no other.

    Activations follow from the layout of their group and the model, with the dtype, the token
    budget and the number of threads that made them. The index follows from labels and layouts;
    these two from the prompts (and completions), if they are given. What comes out is compared
    with the recorded sha256: activations that differ get a new record, with their new maker.
    Raises `InputError` for another model than the store's, before anything is written.
    """
    path = Path(path)
    check_model(read_finished(path).origin, model)
    with disk_errors(path), claimed(path):
        manifest = read_finished(path)
        damaged = find_damage(path, manifest)
        sequences = None
        if prompts is not None and any(each.holding.kind != "shard" for each in damaged):
            sequences = read_sequences(model, manifest.origin, prompts, completions)
        made: list[Damage] = []
        left: list[Damage] = []
        parts = []
        for number, part in enumerate(manifest.parts):
            of_part = [
                damage
                for damage in damaged
                if damage.holding.part == number and damage.holding.kind != "shard"
            ]
            rebuilt = rebuild(path, part, manifest.origin, of_part, sequences)
            parts.append(rebuilt.part)
            made += rebuilt.made
            left += rebuilt.left
        mended = manifest.model_copy(update={"parts": tuple(parts)})
        lost = {damage.holding.record.file for damage in left}
        shards = {each.holding.record.file: each for each in damaged if each.holding.sites}
        for group, record in progress(_records(manifest, shards), "repair activations"):
            damage = shards[record.file]
            if group.layout.file in lost:
                why = f"{damage.fault}; not made again: its layout {group.layout.file} is damaged"
                left.append(dataclasses.replace(damage, fault=why))
            else:
                mended = _remake(path, mended, group, record, model)
                made.append(damage)
        if mended != manifest:
            _publish(path, mended, manifest, made)
        same = {record.sha256 for record in mended.files}
        return Repaired(
            path=path,
            restored=tuple(each for each in made if each.holding.record.sha256 in same),
            remade=tuple(each for each in made if each.holding.record.sha256 not in same),
            left=tuple(left),
        )


def check_model(origin: Origin, model: Model) -> None:
    """Refuse a model that would compute other activations than this origin says."""
    mine = model.identity.model_dump()
    seen = {name: mine[name] for name in ("weights_digest", "config_digest", "quantization")}
    seen |= {
        "compute_dtype": str(model.dtype).removeprefix("torch."),
        "procedure": VERSIONS["activations"],
    }
    differing = [
        f"{name}: the store's {getattr(origin, name)}, the model's {here}"
        for name, here in seen.items()
        if getattr(origin, name) != here
    ]
    if differing:
        raise InputError(
            f"{model.name} did not make these activations and cannot repair them: "
            f"{'; '.join(differing)}. Give the checkpoint that made them, loaded as it was"
        )


def _records(manifest: Manifest, shards: Collection[str]) -> list[tuple[GroupRecord, ShardRecord]]:
    """The shards of these names, each with its group."""
    return [
        (group, shard)
        for group in manifest.groups
        for shard in group.shards
        if shard.file in shards
    ]


def _remake(
    path: Path, manifest: Manifest, group: GroupRecord, record: ShardRecord, model: Model
) -> Manifest:
    """Compute and write one shard; the manifest then has its record, old or new."""
    former = manifest.makers[record.maker]
    job = Job(
        Layout.from_file(path / group.layout.file),
        record.sites,
        manifest.origin.dtype,
        former.token_budget,
        manifest.origin.sinks,
    )
    with _threads_of(former, model):
        values = compute(model, job)
        maker = make_maker(model, former.token_budget)
    written = write_tensors(path / record.file, values)
    if written.record.sha256 == record.sha256:
        return manifest
    makers = manifest.makers if maker in manifest.makers else (*manifest.makers, maker)
    made = written.shard(values, makers.index(maker))

    def mended(number: int, group: GroupRecord) -> list[ShardRecord]:
        return [made if old.file == made.file else old for old in group.shards]

    parts = with_shards(manifest.parts, mended)
    return manifest.model_copy(update={"makers": makers, "parts": parts})


def _threads_of(maker: Maker, model: Model) -> contextlib.AbstractContextManager[None]:
    """As many threads as the maker had: on a CPU, sums are rounded by how they are divided."""
    counts = maker.n_threads and model.device.type == "cpu"
    return with_threads(maker.n_threads) if counts else contextlib.nullcontext()


def _publish(path: Path, mended: Manifest, former: Manifest, made: Iterable[Damage]) -> None:
    """The history tells of the files whose bytes are new."""
    kept = {record.sha256 for record in mended.files}
    changed = [each for each in made if each.holding.record.sha256 not in kept]
    collection = records.Collection(
        provenance=provenance(),
        n_new_sequences=0,
        n_shards_made=sum(each.holding.kind == "shard" for each in changed),
        sites=tuple(dict.fromkeys(site for each in changed for site in each.holding.sites)),
    )
    publish(path, mended, collection)
