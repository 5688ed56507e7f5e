"""What a collection is asked for, and what of it is new: one pass over prompts that may be many."""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from probes.activations.files import write_named
from probes.activations.format import FileRecord, GroupRecord, Manifest, PartRecord
from probes.activations.index import Index, is_among, read_index
from probes.activations.labels import Labels, labelling
from probes.activations.layout import Layout, groups, lay_out
from probes.activations.origin import Origin
from probes.activations.positions import first_row_tokens, is_one_each
from probes.activations.sequences import Distinct, pieces, sequence_id, stream, tokenise
from probes.activations.spool import ID_BYTES, Spool, id_array, spooling
from probes.foundation.errors import InputError
from probes.foundation.progress import bar
from probes.models.loading import Model
from probes.prompts.records import Prompt


@dataclasses.dataclass(frozen=True)
class Intake:
    """asked: ids of all sequences in order. spool, labels: those that the store does not have."""

    asked: np.ndarray
    spool: Spool
    labels: Labels


@contextlib.contextmanager
def take_in(
    model: Model,
    origin: Origin,
    prompts: Iterable[Prompt | str] | Prompt | Path | str,
    completions: Iterable[str] | None,
    there: Manifest | None,
    path: Path,
    allow_missing: bool,
) -> Iterator[Intake]:
    """Tokenise what is new, into temporary files under `path` that are gone afterwards.

    Raises `InputError` for no prompts, for a sequence that is asked for twice, and for new prompts
    of unlike texts that are the same tokens.
    """
    known = read_index(path, there.parts).ids if there and there.parts else id_array(b"")
    known = np.sort(known)
    asked = bytearray()
    distinct = Distinct()
    with (
        spooling(path) as spool,
        labelling(path) as labels,
        bar("tokenise prompts") as shown,
    ):
        for piece, texts in pieces(stream(prompts), completions):
            ids = b"".join(map(sequence_id, piece, texts))
            new = np.flatnonzero(~is_among(known, id_array(ids)))
            if len(new):
                numbers = len(asked) // ID_BYTES + new
                sequences = tokenise(
                    model,
                    origin,
                    [piece[i] for i in new],
                    [texts[i] for i in new],
                    numbers,
                    allow_missing,
                )
                distinct.add(sequences, numbers)
                for sequence in sequences:
                    spool.append(sequence)
                labels.append(sequences)
            asked += ids
            shown.update(len(piece))
        order = id_array(bytes(asked))
        _check(order)
        distinct.check()
        yield Intake(order, spool, labels)


def _check(asked: np.ndarray) -> None:
    if not len(asked):
        raise InputError("no prompts to collect activations for")
    places = np.argsort(asked, kind="stable")
    same = np.flatnonzero(asked[places][1:] == asked[places][:-1])
    if len(same):
        first, second = places[same[0]], places[same[0] + 1]
        raise InputError(
            f"{len(same)} prompts are given twice; the first are prompts {first} and {second}, "
            "equal in text, labels and completion. Give each once; rows can be repeated on reading"
        )


@dataclasses.dataclass(frozen=True)
class Limits:
    """How large a group may be: what an interruption costs, and what memory holds at a time."""

    max_tokens: int
    max_rows: int


def limits(shard_tokens: int, shard_bytes: int, n_sites: int, row_bytes: int) -> Limits:
    """Groups of at most `shard_tokens` tokens, whose residual stream is at most `shard_bytes`.

    The bound takes the residual stream at every layer, whatever sites are asked for, so that sites
    which are added later fit into the same groups.
    """
    return Limits(shard_tokens, max(1, shard_bytes // (n_sites * row_bytes)))


def plan_part(
    path: Path,
    spool: Spool,
    labels: FileRecord,
    positions: str,
    first_group: int,
    limit: Limits,
) -> PartRecord:
    """A part without activations yet: its layouts and its index are written, group by group."""
    n_sequences = len(spool)
    n_rows = np.zeros(n_sequences, dtype=np.int64)
    for i in range(n_sequences):
        n_rows[i] = first_row_tokens(positions, spool.extent(i))[2]
    planned = []

    def laid() -> Iterator[tuple[np.ndarray, Layout]]:
        """One at a time: together they are as large as all tokens."""
        cut = groups(
            spool.lengths, n_rows, is_one_each(positions), limit.max_tokens, limit.max_rows
        )
        for members in cut:
            layout = lay_out([spool[int(i)] for i in members], positions)
            planned.append(
                GroupRecord(
                    n_sequences=layout.n_sequences,
                    n_rows=layout.n_rows,
                    n_tokens=layout.n_tokens,
                    layout=write_named(path, "layout", layout.to_bytes()),
                    shards=(),
                )
            )
            yield members, layout

    index = Index.of(np.frombuffer(spool.ids.tobytes(), dtype=np.uint8).reshape(-1, 32), laid())
    return PartRecord(
        n_sequences=n_sequences,
        n_rows=int(n_rows.sum()),
        first_group=first_group,
        prompts=labels,
        index=write_named(path, "index", index.to_bytes()),
        groups=tuple(planned),
    )
