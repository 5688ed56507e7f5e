"""A kept batch run once more from a layer, all of its positions, with acts at any places on the way.

This is how gradients, paths and lenses use the engine: `Trunk.resume` with no position left out. What the
model lays out in its own way (heads flat, or before positions) an act sees as `Kept.at` has it.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.patching.engine.scoring import Prepared, Scorer
from probes.patching.engine.taps import Taps
from probes.patching.engine.trunk import Kept, Place, Run, Trunk

# Gets `[batch, pos, ...]` as `Kept.at` has it and returns what to go on with.
Act = Callable[[Tensor], Tensor]


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
                taps.queries[place[1]] = _turned(act)
            case "pattern":
                taps.patterns[place[1]] = _turned(act)
            case "z":
                edits[place] = _flat(act, trunk.n_heads)
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


def _turned(act: Act) -> Act:
    """For a tensor that has its heads before its positions."""
    return lambda found: act(found.transpose(1, 2)).transpose(1, 2)


def _flat(act: Act, n_heads: int) -> Act:
    """For a site that the model has flat, one head behind another."""
    return lambda found: act(found.unflatten(-1, (n_heads, -1))).flatten(2)
