"""Tables and layouts made again: from each other, or from the prompts that they were made from."""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from probes.activations.files import write_small
from probes.activations.format import FileRecord, PartRecord
from probes.activations.groups import grouping_order
from probes.activations.index import Index
from probes.activations.labels import labelling, read_labels
from probes.activations.layout import Layout, lay_out
from probes.activations.origin import Origin
from probes.activations.positions import is_one_each
from probes.activations.sequences import PIECE, TokenSequence, pieces, stream, tokenise
from probes.activations.upkeep.checking import Damage
from probes.foundation.digest import digest_bytes
from probes.foundation.errors import InputError
from probes.models.loading import Model
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
    layout = lay_out(
        [sequence.id for sequence in members],
        [sequence.tokens for sequence in members],
        [sequence.extent for sequence in members],
        positions,
    )
    return layout.to_bytes()


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
    columns: dict[str, np.ndarray] = {
        "group": np.zeros(len(ids), dtype=np.int32),
        "first_row": np.zeros(len(ids), dtype=np.int64),
        "n_rows": np.zeros(len(ids), dtype=np.int32),
        "n_tokens": np.zeros(len(ids), dtype=np.int32),
        "n_prompt_tokens": np.zeros(len(ids), dtype=np.int32),
    }
    for number, layout in enumerate(_layouts(path, part)):
        own = [row.tobytes() for row in layout.sequence_id]
        if absent := [id for id in own if id not in place]:
            raise InputError(f"{len(absent)} sequences of its layouts are not among its labels")
        places = [place[id] for id in own]
        columns["group"][places] = number
        columns["first_row"][places] = layout.row_offsets[:-1]
        columns["n_rows"][places] = np.diff(layout.row_offsets)
        columns["n_tokens"][places] = layout.lengths
        columns["n_prompt_tokens"][places] = layout.n_prompt_tokens
    sequence_id = np.frombuffer(b"".join(ids), dtype=np.uint8).reshape(-1, 32)
    return Index(sequence_id=sequence_id, **columns).to_bytes()


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
