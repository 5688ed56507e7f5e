"""The slow way: one full forward pass per cell, prompt and continuation, with hooks; nothing is reused.

It is what the engine is checked against, in the tests and in every grid.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probes.foundation.errors import StageError
from probes.foundation.seeds import derive_seed
from probes.models.anatomy import blocks
from probes.models.encoding import pad
from probes.models.forward import inputs
from probes.models.hooks import editing, recording
from probes.patching.engine.packing import Packed
from probes.patching.engine.rows import Row, batches
from probes.patching.engine.scoring import Prepared, Scorer
from probes.patching.engine.taps import RunCache, Taps, tapping
from probes.patching.engine.trunk import Place, site_of
from probes.patching.refusals import TOLERANCE

Put = Callable[[Tensor], Tensor]


def whole_logits(hf: Any, row: Packed, puts: dict[Place, list[Put]] | None = None) -> Tensor:
    """Logits of a row's reads `[read, d_vocab]`, each continuation in a forward pass of its own.

    puts: per place, one function per continuation that gets the activation `[1, pos, width]`, or
    `[1, pos, head, ...]` where there are heads, and returns what to use.
    """
    reads: dict[int, Tensor] = {}
    for number, (tokens, kept) in enumerate(sequences(row)):
        own = {place: per_branch[number] for place, per_branch in (puts or {}).items()}
        with torch.no_grad(), _putting(hf, own) as cache:
            given = inputs(hf, pad([tokens], 0)) | (
                {} if cache is None else {"past_key_values": cache}
            )
            logits = hf(**given).logits[0]
        reads |= {read: logits[kept.index(at)] for read, at in enumerate(row.reads) if at in kept}
    return torch.stack([reads[read] for read in range(len(row.reads))])


def sequences(row: Packed) -> list[tuple[list[int], list[int]]]:
    """Per continuation, the tokens of prompt and continuation, and which packed positions they are."""
    found = []
    for branch in sorted({target.branch for target in row.targets}) or [0]:
        kept = [i for i, b in enumerate(row.branch) if b in (-1, branch)]
        found.append(([row.tokens[i] for i in kept], kept))
    return found


def whole_values(hf: Any, tokens: Sequence[int], place: Place) -> Float[Tensor, "batch pos *width"]:
    """What a plain run computes at a place."""
    kind, layer = place
    n_heads = int(hf.config.get_text_config().num_attention_heads)
    given = inputs(hf.base_model, pad([list(tokens)], 0))
    with torch.no_grad():
        if kind in ("k", "v"):
            cache = RunCache(keep=True)
            hf.base_model(**given | {"past_key_values": cache})
            return cache.kept[layer][kind == "v"].transpose(1, 2)
        if kind in ("q", "pattern"):
            taps, found = Taps(), list[Tensor]()
            target = taps.queries if kind == "q" else taps.patterns
            target[layer] = lambda seen: found.append(seen.clone().transpose(1, 2))
            with tapping(hf, taps):
                hf.base_model(**given)
            return found[0]
        site = site_of(place, len(blocks(hf)))
        with recording(hf, [site], stop=True) as seen:
            hf.base_model(**given)
    values = seen[site]
    return values.reshape(*values.shape[:2], n_heads, -1) if kind == "z" else values


@contextlib.contextmanager
def _putting(hf: Any, puts: dict[Place, Put]) -> Any:
    taps = Taps()
    caching = {place: put for place, put in puts.items() if place[0] in ("k", "v")}

    def edit(kind: str, layer: int, computed: Tensor) -> Tensor:
        put = caching.get((kind, layer))
        return computed if put is None else put(computed.transpose(1, 2)).transpose(1, 2)

    def turned(put: Put) -> Put:
        return lambda found: put(found.transpose(1, 2)).transpose(1, 2)

    def by_head(put: Put, n_heads: int) -> Put:
        def flat(activation: Tensor) -> Tensor:
            parted = activation.reshape(*activation.shape[:2], n_heads, -1)
            return put(parted).reshape(activation.shape)

        return flat

    with contextlib.ExitStack() as stack:
        for place, put in puts.items():
            match place[0]:
                case "q":
                    taps.queries[place[1]] = turned(put)
                case "pattern":
                    taps.patterns[place[1]] = turned(put)
                case "k" | "v":
                    pass
                case kind:
                    n_heads = int(hf.config.get_text_config().num_attention_heads)
                    act = by_head(put, n_heads) if kind == "z" else put
                    stack.enter_context(editing(hf, site_of(place, len(blocks(hf))), act))
        if taps.queries or taps.patterns:
            stack.enter_context(tapping(hf, taps))
        yield RunCache(edit=edit) if caching else None


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
