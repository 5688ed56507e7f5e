"""Collect activations: each sequence once, only as deep as needed, nothing lost if interrupted.

One pass over prompts that may be many says what is asked for, and what of it is new.
"""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from probes.activations.engine import Engine, engine_named
from probes.activations.files import write_named
from probes.activations.format import FileRecord, GroupRecord, Manifest, PartRecord
from probes.activations.index import Index, is_among, read_index
from probes.activations.labels import Labels, labelling
from probes.activations.layout import Layout, groups, lay_out
from probes.activations.origin import Origin, describe_origin, first_row_tokens, is_one_each
from probes.activations.place import clean, prepare
from probes.activations.publication import Request, extended, fill, make_maker, positive
from probes.activations.sequences import (
    ID_BYTES,
    Distinct,
    Spool,
    id_array,
    pieces,
    sequence_id,
    spooling,
    stream,
    tokenise,
)
from probes.activations.store import ActivationStore
from probes.foundation.artifact import disk_errors
from probes.foundation.errors import InputError
from probes.foundation.outputs import writes
from probes.foundation.progress import bar
from probes.models.anatomy import width
from probes.models.loading import DTYPES, Model
from probes.models.sites import Site, parse_site, residual_sites
from probes.models.speed import TIMED_ROWS, announce
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


TOKEN_BUDGET = 8192
# What an interruption costs at most. The size for a GPU is a guess: none was at hand.
SHARD_TOKENS = {"cpu": 1 << 16, "cuda": 1 << 20}
SHARD_BYTES = 1 << 29


@writes("path")
def collect(
    model: Model,
    prompts: Iterable[Prompt | str] | Prompt | Path | str,
    path: Path | str,
    *,
    sites: Iterable[Site | str] | None = None,
    positions: str | int = "last",
    spans: Mapping[str, str] | None = None,
    completions: Iterable[str] | None = None,
    allow_missing: bool = False,
    dtype: str = "float32",
    token_budget: int = TOKEN_BUDGET,
    keep_sinks: bool = False,
    shard_tokens: int | None = None,
    shard_bytes: int = SHARD_BYTES,
    engine: str | Engine = "process",
) -> ActivationStore:
    """Run the model over prompts and keep what it computes in a store at `path`.

    prompts: any iterable, or a file of JSON Lines; taken in a piece at a time, so that memory does
        not grow with their number. completions: a given continuation of each.
    sites: by default the residual stream at every layer. positions: see `parse_positions`; spans:
        further named spans as regular expressions. allow_missing: store no row where a span is
        absent, instead of refusing.
    dtype: of the stored numbers. token_budget: padded tokens per forward pass.
    keep_sinks: whether attention sinks count in means (see `Model.sinks`); they are left out.
    shard_tokens, shard_bytes: bounds of a shard, by default 65,536 tokens on a CPU and 1,048,576
        elsewhere, and 512 MiB; three shards at most are held in memory.
    engine: "process", or "ray" for the workers of a Ray cluster.

    Returns the store as asked for: these sequences in this order. What the store has is not computed
    again; what it lacks (sequences, sites) is added. After an interruption the same call goes on
    from the finished shards and ends in the same bytes. Raises `InputError` where something else
    lies at `path`, and `StageError` for NaN or infinite activations, a full or a read-only disk.
    """
    path = Path(path)
    origin = describe_origin(
        model, positions=positions, spans=spans, dtype=dtype, completions=completions is not None,
        keep_sinks=keep_sinks,
    )  # fmt: skip
    chosen = choose_sites(model, sites)
    request = Request(
        model=model,
        path=path,
        origin=origin,
        widths={str(site): width(model.hf, site) for site in chosen},
        maker=make_maker(model, token_budget),
        shard_tokens=positive(
            "shard_tokens",
            SHARD_TOKENS.get(model.device.type, SHARD_TOKENS["cuda"])
            if shard_tokens is None
            else shard_tokens,
        ),
        shard_bytes=positive("shard_bytes", shard_bytes),
        engine=engine_named(engine),
    )
    with disk_errors(path):
        there = prepare(path, origin)
        with take_in(model, origin, prompts, completions, there, path, allow_missing) as intake:
            asked = intake.asked
            few = [
                intake.spool[i].tokens.tolist() for i in range(min(len(intake.spool), TIMED_ROWS))
            ]
            announce(model, "collecting activations", float(intake.spool.lengths.sum()), few)
            manifest = fill(request, _plan(request, intake, there), asked)
        clean(path, manifest)
    return ActivationStore.open(path, model.identity).select_ids(asked, list(request.widths))


def choose_sites(model: Model, sites: Iterable[Site | str] | None) -> list[Site]:
    """Sites by depth, each once; None means the residual stream at every layer."""
    if sites is None:
        return residual_sites(model.n_layers)
    chosen = {parse_site(str(site), model.n_layers) for site in sites}
    if not chosen:
        raise InputError(
            "no sites to collect; leave `sites` out for the residual stream everywhere"
        )
    return sorted(chosen)


def _plan(request: Request, intake: Intake, there: Manifest | None) -> Manifest:
    """The manifest of the store as it will be, its new groups still without activations."""
    if there is not None and not len(intake.spool):
        return there.model_copy(update={"widths": {**there.widths, **request.widths}})
    row_bytes = request.model.d_model * DTYPES[request.origin.dtype].itemsize
    part = plan_part(
        request.path,
        intake.spool,
        intake.labels.finish(),
        request.origin.positions,
        len(there.groups) if there else 0,
        limits(request.shard_tokens, request.shard_bytes, request.model.n_layers + 1, row_bytes),
    )
    return extended(request, there, part)
