"""Checks that can fail, run with every grid: the engine against full forward passes, and canaries."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from probes.foundation.errors import StageError
from probes.foundation.seeds import derive_seed
from probes.patching.canary import TOLERANCE
from probes.patching.engine.rows import Row, batches
from probes.patching.engine.scoring import Prepared, Scorer
from probes.patching.engine.trunk import Place
from probes.patching.whole import Put, sequences, whole_logits, whole_values

# Noise of the activation's own size moves the final hidden states by far more than this part of
# their size; a patch that is not applied leaves them as they are, to the last bit.
MOVED = 1e-6
# A head that hardly looks at a token shows a change there only if it is large.
NOISES = (1.0, 32.0, 1024.0)
# At the first position a query has one key to look at, so neither query, key nor pattern matter.
SOFTMAX_OF_ONE = ("q", "k", "pattern")
REFUSED = (
    "The engine does not continue this architecture from a kept run as the model itself would, so "
    "no grid of it can be trusted. Leave patching out (--no-patching); `probes doctor` says what can "
    "be read."
)


def check_resuming(scorer: Scorer, prepared: Prepared, seed: int) -> float:
    """Continue a prompt, unpatched, from several layers and positions: the full run's states.

    Of the longest prompt and of one that the seed draws, the metric is compared with full forward
    passes too, in which each continuation stands alone. Returns the largest error as a part of the
    values' size (metrics: at least 1 nat). Raises `StageError` beyond the tolerance of the number
    format.
    """
    kept, hf, n_layers = prepared.kept, scorer.trunk.hf, scorer.trunk.n_layers
    allowed = TOLERANCE[kept.final.dtype]
    rows, reference = kept.batch.rows, prepared.reference
    longest = max(range(len(rows)), key=lambda i: len(rows[i].tokens))
    drawn = int(np.random.default_rng(derive_seed(seed, "checked pair")).integers(len(rows)))
    largest = 0.0
    for i in sorted({longest, drawn}):
        logits, against = whole_logits(hf, rows[i]), None if reference is None else reference[i]
        plain = float(scorer.metric.score(logits, [rows[i]], against)[0])
        packed = float(prepared.unpatched[i])
        error = abs(plain - packed) / max(abs(packed), 1.0)
        largest = max(largest, error)
        if not error <= allowed:
            raise StageError(
                f"{rows[i].name}: {scorer.metric.name} is {plain:.6f} by a full forward pass and "
                f"{packed:.6f} with the continuations side by side. {REFUSED}"
            )
    n_prompt = rows[longest].n_prompt
    starts = sorted({min(1, n_prompt - 1), n_prompt // 2, n_prompt - 1})
    for layer in sorted({0, n_layers // 2, n_layers - 1, n_layers}):
        batch = [scorer.unchanged(prepared, longest, layer, start) for start in starts]
        found = scorer.final(prepared, {}, batch)
        for row, final, start in zip(batch, found, starts, strict=True):
            right = kept.final[longest, row.tail : row.length]
            error = float((final[: row.n_tail] - right).abs().max() / right.abs().max())
            largest = max(largest, error)
            if not error <= allowed:
                raise StageError(
                    f"{type(hf).__name__} entered at layer {layer} and position {start} ends "
                    f"{error:.2g} of its size away from the full forward pass. {REFUSED}"
                )
    return largest


def watched_cells(rows: Sequence[Row]) -> dict[tuple[int, int], bool]:
    """Cells that have to show that they move the output: of each place and head the first and the last.

    They are taken from the first prompt in which there are any.
    """
    first = min((row.pair for row in rows), default=0)
    by_place: dict[tuple[tuple[Place, int | None], ...], list[Row]] = {}
    for row in rows:
        if row.pair == first and not _powerless(row):
            by_place.setdefault(tuple((c.place, c.head) for c in row.changes), []).append(row)
    return {row.result: False for same in by_place.values() for row in (same[0], same[-1])}


def check_noise(
    scorer: Scorer,
    prepared: Prepared,
    rows: Sequence[Row],
    watched: Mapping[tuple[int, int], bool],
    seed: int,
) -> None:
    """Noise at the watched cells whose own values moved nothing: now the final states must move.

    It grows until they do, to 1024 times the size of what is there.

    Raises `StageError` naming the place of the first cell that patches nothing.
    """
    left = [row for row in rows if watched.get(row.result, True) is False]
    for scale in NOISES:
        if not left:
            return
        noisy = {
            place: _noise(values, seed, place) * scale
            for place, values in prepared.values.items()
            if any(change.place == place for row in left for change in row.changes)
        }
        still = []
        for batch in batches(left, scorer.batch_tokens):
            changed = scorer.final(prepared, noisy, batch)
            same = scorer.final(prepared, {}, [dataclasses.replace(r, changes=()) for r in batch])
            reached = (changed - same).abs().amax((1, 2)) > MOVED * same.abs().amax((1, 2))
            still += [row for row, moved in zip(batch, reached.tolist(), strict=True) if not moved]
        left = still
    for row in left:
        where = ", ".join(
            f"{c.place[0]} {c.place[1]}"
            + ("" if c.head is None else f" head {c.head}")
            + f" at {c.positions.tolist()}"
            for c in row.changes
        )
        raise StageError(
            f"noise patched in at {where}, up to {NOISES[-1]:g} times the size of what is there, does "
            "not reach the model's output: this cell patches nothing. Run `probes doctor` on this model."
        )


def check_sample(
    scorer: Scorer,
    prepared: Prepared,
    rows: Sequence[Row],
    found: Sequence[float],
    n: int,
    seed: int,
) -> float:
    """A few cells once more by full forward passes with hooks; returns the largest error.

    Rows are drawn by the seed. Raises `StageError` where the two ways differ beyond the tolerance.
    """
    draw = np.random.default_rng(derive_seed(seed, "audited cells"))
    largest = 0.0
    for i in draw.choice(len(rows), min(n, len(rows)), replace=False) if len(rows) else ():
        row, seen = rows[int(i)], found[int(i)]
        right = slow_score(scorer, prepared, row)
        error = abs(right - seen) / max(abs(right), 1.0)
        largest = max(largest, error)
        if not error <= TOLERANCE[prepared.kept.final.dtype]:
            raise StageError(
                f"a cell computed twice differs: {seen:.6f} by the engine, {right:.6f} by full forward "
                f"passes ({scorer.metric.name}; {row.changes[0].place} of pair "
                f"{prepared.kept.batch.rows[row.pair].name!r}). {REFUSED}"
            )
    return largest


def slow_score(scorer: Scorer, prepared: Prepared, row: Row) -> float:
    """The metric of one cell in one prompt by full forward passes; paired values are run anew too."""
    hf, packed = scorer.trunk.hf, prepared.kept.batch.rows[row.pair]
    pair = scorer.pairs[prepared.pairs[row.pair]]
    other = scorer.plan.other(pair)
    puts: dict[Place, list[Put]] = {}
    for change in row.changes:
        per_branch = puts.setdefault(change.place, [])
        for number, (tokens, kept) in enumerate(sequences(packed)):
            where = [kept.index(int(p)) for p in change.positions if int(p) in kept]
            if scorer.plan.values == "paired":
                given = [*other, *tokens[len(scorer.plan.run(pair)) :]]
                values = whole_values(hf, given, change.place)[0]
                if pair.matched is not None:
                    values = values[scorer.plan.counterparts(pair, len(tokens))]
            else:
                values = prepared.values[change.place][row.pair][kept]
                if change.place[0] == "pattern":
                    values = values[..., kept]
            put = _put(where, change.head, values)
            if len(per_branch) > number:
                put = _both(per_branch[number], put)
                per_branch[number] = put
            else:
                per_branch.append(put)
    logits = whole_logits(hf, packed, puts)
    reference = None if prepared.reference is None else prepared.reference[row.pair]
    return float(scorer.metric.score(logits, [packed], reference)[0])


def _put(where: list[int], head: int | None, values: Tensor) -> Put:
    def put(activation: Tensor) -> Tensor:
        changed = activation.clone()
        if head is None:
            changed[0, where] = values[where].to(changed)
        else:
            changed[0, where, head] = values[where, head].to(changed)
        return changed

    return put


def _both(first: Put, second: Put) -> Put:
    return lambda activation: second(first(activation))


def _powerless(row: Row) -> bool:
    return all(
        change.place[0] in SOFTMAX_OF_ONE and change.positions.tolist() == [0]
        for change in row.changes
    )


def _noise(values: Tensor, seed: int, place: Place) -> Tensor:
    generator = torch.Generator().manual_seed(derive_seed(seed, "noise", place))
    noise = torch.randn(values.shape, generator=generator).to(values)
    if place[0] == "pattern":
        return noise.abs()
    return noise * values.square().mean().sqrt().clamp_min(1e-3)
