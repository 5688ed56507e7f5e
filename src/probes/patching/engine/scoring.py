"""The exact numbers of many cells: one row per cell and prompt, only what changes is computed; or a kept batch run once more whole.

The second is how gradients, paths and lenses use the engine: `Trunk.resume` with no position left out, and acts
at any places on the way, which see what the model lays out in its own way as `Kept.at` has it.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.foundation.errors import StageError
from probes.models.sinks import SinkRule
from probes.patching.engine.packing import Packed, pack
from probes.patching.engine.rows import Change, Row, fill
from probes.patching.engine.taps import Act, Taps, by_head, turned
from probes.patching.engine.trunk import Kept, Place, Run, Trunk, behind_keys
from probes.patching.measures import Metric, checked
from probes.patching.pairs import EncodedPair
from probes.patching.parts import EVERYWHERE, Cell
from probes.patching.refusals import TOLERANCE
from probes.patching.sources import Means, Plan, aligned, columns_in, projected
from probes.patching.spans import Column

# Where a change leaves the attention of its own block as it was.
BEHIND_ATTENTION = ("z", "attn_out", "resid_mid", "mlp_out")
NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A group of pairs, run once whole: what every cell of a grid starts from.

    unpatched, other: the metric of the run that is patched and of the other version of the prompt.
    given: the run that values come from, where it is one. reference: logits of the other version's
    reads, where the metric compares with them.
    """

    pairs: tuple[int, ...]
    kept: Kept
    values: dict[Place, Tensor]
    first: tuple[int, ...]
    unpatched: Float[np.ndarray, "pair"]
    other: Float[np.ndarray, "pair"]
    given: Kept | None
    reference: tuple[Tensor, ...] | None


def moved(final: Tensor, kept: Kept, row: Row) -> bool:
    """Whether what is read of a row ends further from the kept run than rounding takes it."""
    right = kept.final[row.pair, row.tail : row.length]
    allowed = TOLERANCE[final.dtype] * right.abs().max()
    return bool((final - right).abs().max() > allowed)


class Scorer:
    """Cells and prompts in, numbers out; what was run whole is kept for the next site.

    batch_tokens: tokens that are run at once, padding included; halved where memory runs out.
    """

    def __init__(
        self,
        trunk: Trunk,
        metric: Metric,
        pairs: Sequence[EncodedPair],
        columns: Sequence[Column],
        plan: Plan,
        batch_tokens: int,
    ) -> None:
        self.trunk = trunk
        self.metric = metric
        self.pairs = pairs
        self.columns = columns
        self.plan = plan
        self.batch_tokens = batch_tokens
        self.means: Means | None = None
        self._donors = plan.donors(len(pairs))
        gives_clean = plan.runs_clean == (plan.values == "placebo")
        self._mine = columns_in(columns, pairs, plan.runs_clean)
        self._theirs = columns_in(columns, pairs, gives_clean)

    def prepare(self, members: Sequence[int], places: Sequence[Place]) -> Prepared:
        """Run these pairs whole, both versions, and line the values up with their positions."""
        rows = [self._packed(i, self.plan.run(self.pairs[i])) for i in members]
        others = [self._packed(i, self.plan.other(self.pairs[i])) for i in members]
        with torch.no_grad():
            other = self.trunk.record(others, places if self.plan.own else ())
            kept = self.trunk.record(rows, self._attended(places))
            reference = None
            if self.metric.compares:
                logits = self.trunk.logits(other.at_reads())
                reference = tuple(logits.split([len(row.reads) for row in others]))
            values = self._values(members, kept, other, places)
            return Prepared(
                tuple(members),
                kept,
                values,
                tuple(self.plan.first_change(self.pairs[i]) for i in members),
                self._unpatched(kept, reference),
                self._unpatched(other, reference),
                other if self.plan.values == "paired" else None,
                reference,
            )

    def with_streams(self, prepared: Prepared, places: Sequence[Place]) -> Prepared:
        """The same runs for other places in the residual stream, which is kept at every depth."""
        assert prepared.given is not None
        width = prepared.kept.batch.tokens.shape[1]
        values = self._lined_up(prepared.given, places, prepared.pairs, width)
        return dataclasses.replace(prepared, values=values)

    def add_means(
        self, members: Sequence[int], places: Sequence[Place], sinks: SinkRule | None
    ) -> None:
        """Take these pairs into the means, which need all pairs before the first cell."""
        self.means = self.means or Means(self._mine, self._theirs, sinks)
        rows = [self._packed(i, self.plan.other(self.pairs[i])) for i in members]
        with torch.no_grad():
            self.means.add(self.trunk.record(rows, places), places, members)

    def rows(self, prepared: Prepared, cells: Sequence[Cell]) -> list[Row]:
        """What has to be computed; a cell that changes nothing in a prompt is not among it."""
        differs = {place: self._differs(prepared, place) for place in prepared.values}
        found = []
        for c, cell in enumerate(cells):
            for local, pair in enumerate(prepared.pairs):
                row = prepared.kept.batch.rows[local]
                changes = []
                for part in cell.parts:
                    where = self.where(pair, part.column, len(row.tokens))
                    where = where[differs[part.place][local, where]]
                    if behind_keys(part.place, self.trunk.n_layers - 1):
                        where = where[where >= row.reads[0]]
                    if len(where):
                        changes.append(Change(part.place, part.head, where))
                if changes:
                    found.append(self._row(prepared, (c, local), tuple(changes), cell.layer))
        return found

    def where(self, pair: int, column: int, n_tokens: int) -> Int[np.ndarray, "pos"]:
        """Positions of a column in the run that is patched; of `EVERYWHERE`, all that have a counterpart."""
        if column == EVERYWHERE:
            return self.plan.everywhere(self.pairs[pair], n_tokens)
        return np.array(self._mine[column].positions[pair], dtype=np.int64)

    def unchanged(self, prepared: Prepared, local: int, layer: int, start: int) -> Row:
        """A row that is continued from a layer and a position, with nothing changed."""
        packed = prepared.kept.batch.rows[local]
        tail = packed.reads[0] if self.trunk.reads_last else min(start, packed.reads[0])
        lead = np.arange(start, tail if layer < self.trunk.n_layers else start)
        return Row((0, local), local, (), layer, lead, tail, len(packed.tokens))

    def _row(
        self, prepared: Prepared, result: tuple[int, int], changes: tuple[Change, ...], layer: int
    ) -> Row:
        """All positions from the first that changes on; in the last block those that change or are read."""
        local = result[1]
        attended = ("z", layer) in prepared.kept.values and not any(
            change.place[1] == layer and change.place[0] not in BEHIND_ATTENTION
            for change in changes
        )
        start = min(int(change.positions.min()) for change in changes)
        row = self.unchanged(prepared, local, layer, start)
        lead = row.lead
        if self.trunk.reads_last and layer >= self.trunk.n_layers - 1:
            changed = np.unique(np.concatenate([change.positions for change in changes]))
            lead = changed[changed < row.tail]
        return dataclasses.replace(
            row, result=result, changes=changes, lead=lead, attended=attended
        )

    def _attended(self, places: Sequence[Place]) -> list[Place]:
        """The heads' outputs to keep of the run that is patched, so that its attention is not run again."""
        if not self.trunk.skips_attention:
            return []
        return sorted({("z", layer) for kind, layer in places if kind in BEHIND_ATTENTION})

    def run(
        self,
        prepared: Prepared,
        batch: Sequence[Row],
        watched: dict[tuple[int, int], bool] | None = None,
    ) -> Float[np.ndarray, "row"]:
        """The metric of each row; where memory runs out, in two halves.

        watched: by result; for these it is noted whether the final states moved beyond rounding.
        """
        try:
            return self._run(prepared, batch, watched)
        except (RuntimeError, MemoryError) as error:
            if not any(words in str(error).lower() for words in NO_MEMORY) and not isinstance(
                error, torch.OutOfMemoryError | MemoryError
            ):
                raise
            if len(batch) == 1:
                raise StageError(
                    "out of memory with one prompt: give fewer pairs at once with a smaller "
                    "memory_budget, or a smaller dtype"
                ) from error
        if self.trunk.device.type == "cuda":
            torch.cuda.empty_cache()
        self.batch_tokens = max(1, self.batch_tokens // 2)
        print(f"out of memory: going on with {self.batch_tokens} tokens at once", file=sys.stderr)
        half = len(batch) // 2
        halves = batch[:half], batch[half:]
        return np.concatenate([self.run(prepared, part, watched) for part in halves])

    def _run(
        self,
        prepared: Prepared,
        batch: Sequence[Row],
        watched: dict[tuple[int, int], bool] | None,
    ) -> Float[np.ndarray, "row"]:
        hidden = self.final(prepared, prepared.values, batch)
        packed = [prepared.kept.batch.rows[row.pair] for row in batch]
        for r, row in enumerate(batch):
            if watched and row.result in watched:
                watched[row.result] = moved(hidden[r, : row.n_tail], prepared.kept, row)
        rows = np.repeat(np.arange(len(batch)), [len(one.reads) for one in packed])
        at = [np.array(one.reads) - row.tail for row, one in zip(batch, packed, strict=True)]
        index = torch.from_numpy(np.stack([rows, np.concatenate(at)])).to(hidden.device)
        reference = None
        with torch.no_grad():
            logits = self.trunk.logits(hidden[index[0], index[1]])
            if prepared.reference is not None:
                reference = torch.cat([prepared.reference[row.pair] for row in batch])
            score = checked(self.metric, self.metric.score(logits, packed, reference), packed)
        return score.numpy()

    def final(
        self, prepared: Prepared, values: Mapping[Place, Tensor], batch: Sequence[Row]
    ) -> Float[Tensor, "batch tail d_model"]:
        """Final hidden states of each row's tail."""
        with torch.no_grad():
            f = fill(prepared.kept, values, batch)
            return self.trunk.resume(prepared.kept, f.run, f.entry, batch[0].layer, f.edits, f.taps)

    def _packed(self, i: int, prompt: tuple[int, ...]) -> Packed:
        pair = self.pairs[i]
        contrast = getattr(self.metric, "contrasts", False)
        return pack(f"pair {pair.name!r}", prompt, self.metric.branches(pair), contrast=contrast)

    def _values(
        self, members: Sequence[int], kept: Kept, other: Kept, places: Sequence[Place]
    ) -> dict[Place, Tensor]:
        width = kept.batch.tokens.shape[1]
        match self.plan.values:
            case "paired":
                return self._lined_up(other, places, members, width)
            case "projected":
                given = self._lined_up(other, places, members, width)
                own = self.trunk.record(list(kept.batch.rows), places)
                return {
                    p: projected(own.at(p), given[p], p, self.plan, self._mine, members)
                    for p in places
                }
            case "zero":
                shapes = self.trunk.record(list(kept.batch.rows), places)
                return {place: torch.zeros_like(shapes.at(place)) for place in places}
            case "mean":
                assert self.means is not None
                return {p: self.means.values(p, members, width, kept) for p in places}
        donors = [int(self._donors[i]) for i in members]
        packed = [self._packed(d, self.plan.given(self.pairs[d])) for d in donors]
        theirs = self.trunk.record(packed, places)
        lengths = [len(row.tokens) for row in kept.batch.rows]
        return aligned(theirs, places, self._mine, self._theirs, members, donors, lengths, width)

    def _lined_up(
        self, other: Kept, places: Sequence[Place], members: Sequence[int], width: int
    ) -> dict[Place, Tensor]:
        """The other versions' values at the positions that they stand for in the runs."""
        pairs = [self.pairs[i] for i in members]
        if all(pair.matched is None for pair in pairs):
            return {place: other.at(place) for place in places}
        shifts = [len(self.plan.run(p)) - len(self.plan.other(p)) for p in pairs]
        lengths = [
            len(row.tokens) + shift for row, shift in zip(other.batch.rows, shifts, strict=True)
        ]
        index = [
            [*self.plan.counterparts(pair, n), *[0] * (width - n)]
            for pair, n in zip(pairs, lengths, strict=True)
        ]
        rows = torch.arange(len(pairs), device=other.final.device)[:, None]
        at = torch.tensor(index, device=other.final.device)
        return {place: other.at(place)[rows, at] for place in places}

    def _differs(self, prepared: Prepared, place: Place) -> np.ndarray:
        """Where the values at a place differ from what is there, as far as that is known for free."""
        kept = prepared.kept
        width = kept.batch.tokens.shape[1]
        found = torch.ones(len(prepared.pairs), width, dtype=torch.bool)
        if place[0] == "stream":
            found = (prepared.values[place] != kept.streams[place[1]]).any(-1).cpu()
        first = torch.tensor(prepared.first)[:, None]
        return (found & (torch.arange(width) >= first)).numpy()

    def _unpatched(
        self, kept: Kept, reference: tuple[Tensor, ...] | None
    ) -> Float[np.ndarray, "pair"]:
        rows = list(kept.batch.rows)
        logits = self.trunk.logits(kept.at_reads())
        against = None if reference is None else torch.cat(reference)
        return checked(self.metric, self.metric.score(logits, rows, against), rows).numpy()


def prepare_whole(scorer: Scorer, members: Sequence[int], places: Sequence[Place]) -> Prepared:
    """As `Scorer.prepare`, with what stands at the places in the unpatched run as well."""
    prepared = scorer.prepare(members, places)
    with torch.no_grad():
        kept = scorer.trunk.record(list(prepared.kept.batch.rows), places)
    return dataclasses.replace(prepared, kept=kept)


def run_from(
    trunk: Trunk,
    kept: Kept,
    layer: int,
    entry: Float[Tensor, "row pos d_model"],
    acts: Mapping[Place, Act],
    copies: int = 1,
) -> Float[Tensor, "row pos d_model"]:
    """Final hidden states with `entry` as the stream before `layer`.

    acts: by place, none of them below `layer` or at the entry itself. copies: of the kept batch, one
    behind another. What stands behind a row's end is a repeat of its last token, not to be read.
    """
    lengths = kept.batch.lengths.repeat(copies)
    rows = torch.arange(len(kept.batch.rows), device=lengths.device).repeat(copies)
    order = torch.arange(kept.batch.tokens.shape[1], device=lengths.device)
    index = torch.minimum(order[None], lengths[:, None] - 1)
    edits: dict[Place, Act] = {}
    taps = Taps()
    for place, act in acts.items():
        match place[0]:
            case "q":
                taps.queries[place[1]] = turned(act)
            case "pattern":
                taps.patterns[place[1]] = turned(act)
            case "z":
                edits[place] = by_head(act, trunk.n_heads)
            case _:
                edits[place] = act
    run = Run(
        rows=rows,
        index=index,
        real=order[None] < lengths[:, None],
        unrun=torch.zeros(len(rows), 0, dtype=torch.bool, device=rows.device),
        n_lead=0,
        attended=False,
    )
    return trunk.resume(kept, run, entry, layer, edits, taps)


def score(
    scorer: Scorer, prepared: Prepared, final: Float[Tensor, "row pos d_model"], copies: int = 1
) -> Float[Tensor, "row"]:
    """The metric of each row, from its final hidden states; gradients flow through."""
    packed = prepared.kept.batch.rows * copies
    reads = [(r, at) for r, row in enumerate(packed) for at in row.reads]
    where = torch.tensor(reads, device=final.device)
    reference = None if prepared.reference is None else torch.cat(prepared.reference * copies)
    logits = scorer.trunk.logits(final[where[:, 0], where[:, 1]])
    return scorer.metric.score(logits, packed, reference)


def chosen(scorer: Scorer, prepared: Prepared, column: int) -> Bool[Tensor, "batch pos"]:
    """The tokens of a column that a patch can change, by prompt of the batch."""
    kept = prepared.kept
    mask = torch.zeros(kept.batch.tokens.shape, dtype=torch.bool)
    for local, pair in enumerate(prepared.pairs):
        row = kept.batch.rows[local]
        where = scorer.where(pair, column, len(row.tokens))
        mask[local, where[where >= prepared.first[local]]] = True
    return mask.to(kept.final.device)


def groups(lengths: Sequence[int], batch_tokens: int) -> list[tuple[int, ...]]:
    """Numbers of sequences in the given order, as many at once as make `batch_tokens` when padded."""
    size = max(1, batch_tokens // max(lengths))
    whole = range(len(lengths))
    return [tuple(whole[i : i + size]) for i in range(0, len(lengths), size)]
