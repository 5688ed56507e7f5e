"""The gradient of a metric at every activation that a cell could patch, from one pass back and forth.

A zero that asks for its gradient is added to each activation, through the same edits by which values are
patched in. What comes back is therefore the slope of exactly what exact patching moves.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from probes.foundation.errors import InputError, StageError, unknown
from probes.foundation.html import html_table
from probes.foundation.progress import bar
from probes.foundation.seeds import stream
from probes.models.loading import Model
from probes.patching.engine.scoring import (
    Prepared,
    Scorer,
    chosen,
    groups,
    prepare_whole,
    run_from,
    score,
)
from probes.patching.engine.trunk import Place, Trunk
from probes.patching.exact import by_site
from probes.patching.jobs import Settings
from probes.patching.measures import LogProbDifference, Metric
from probes.patching.pairs import EncodedPair
from probes.patching.parts import EVERYWHERE, Cell
from probes.patching.refusals import check_difference, check_matched, check_resampling, check_room
from probes.patching.result import Effects, largest_first, summarise
from probes.patching.sources import Plan
from probes.patching.spans import Column


def check_differentiable(model: Model) -> None:
    """Refuse a model whose products have no true gradient, because its weights are rounded."""
    rounded = [
        name for name, parameter in model.hf.named_parameters() if not parameter.is_floating_point()
    ]
    if model.quantization is not None or rounded:
        what = model.quantization or f"{rounded[0]} and {len(rounded) - 1} more hold integers"
        raise InputError(
            f"{model.name} is quantised ({what}): a gradient through rounded products is not the slope "
            "of what the model computes. Load it in float32 or bfloat16, or patch it exactly with "
            "`patch_cells`, which needs no gradient."
        )


def gradients(scorer: Scorer, prepared: Prepared, places: Sequence[Place]) -> dict[Place, Tensor]:
    """The metric's gradient at these places in the unpatched run, by place, shaped as `Kept.at` has it.

    Raises `InputError` where the metric or the model has no gradient, `StageError` where one is not
    finite.
    """
    return slopes(scorer, prepared, places, prepared.kept.streams[0], lambda _, found: found)


def slopes(
    scorer: Scorer,
    prepared: Prepared,
    places: Sequence[Place],
    entry: Tensor,
    at: Callable[[Place, Tensor], Tensor],
    layer: int = 0,
    copies: int = 1,
) -> dict[Place, Tensor]:
    """The same with `entry` as the stream before `layer`, and `at` deciding what each place holds.

    copies: of every prompt, the whole batch one behind another, so that several points are taken at
    once; entry and gradients are `[copies x batch, pos, ...]`. at: gets the place and what is computed
    there; returns what to use. All places must lie at `layer` or above.
    """
    zeros = {
        place: torch.zeros_like(prepared.kept.at(place))
        .repeat(copies, *(1,) * (prepared.kept.at(place).ndim - 1))
        .requires_grad_()
        for place in dict.fromkeys(places)
    }

    def changed(place: Place, found: Tensor) -> Tensor:
        return at(place, found) + zeros[place].to(found)

    acts = {place: partial(changed, place) for place in zeros}
    with torch.enable_grad():
        start = entry.detach()
        own = acts.pop(("stream", layer), None)
        start = start if own is None else own(start)
        final = run_from(scorer.trunk, prepared.kept, layer, start, acts, copies)
        found = score(scorer, prepared, final, copies)
        if not found.requires_grad:
            raise InputError(
                f"no gradient of {scorer.metric.name!r}: the metric, or the model, cuts it off "
                "(as argmax, rounding, detach or no_grad do). Give a smooth metric, or patch exactly "
                "with `patch_cells`."
            )
        slope = torch.autograd.grad(found.sum(), list(zeros.values()), allow_unused=True)
    return dict(zip(zeros, map(_checked, zeros, slope), strict=True))


def _checked(place: Place, gradient: Tensor | None) -> Tensor:
    where = f"{place[0]} {place[1]}"
    if gradient is None:
        raise InputError(
            f"no gradient reaches {where}: the model cuts it off between there and its logits. Patch "
            "this site exactly with `patch_cells`."
        )
    if not bool(torch.isfinite(gradient).all()):
        raise StageError(
            f"the gradient at {where} is not finite: the model overflows on the way back. Try dtype "
            "float32."
        )
    return gradient


KEYS = ("site", "head", "column", "label")
LEVEL = 0.95


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Agreement:
    """Exact and estimated effects of the same cells on the same pairs.

    rows: one per cell: `site`, `layer`, `head`, `column`, `label`, `exact`, `estimated` (means over
    pairs, in the metric's unit), `error` (estimated minus exact).
    spearman: rank correlation over cells, with its bootstrap 95% interval over pairs in `low` and
    `high`; NaN where one side is the same for every cell. pearson: linear correlation. slope: least
    squares of estimated on exact through the origin (1 = right in size). top: the share of the ten
    largest exact effects that are among the ten largest estimates.
    """

    rows: pd.DataFrame
    spearman: float
    low: float
    high: float
    pearson: float
    slope: float
    top: float
    n_pairs: int

    def __repr__(self) -> str:
        return f"Agreement({self._what()})"

    def _repr_html_(self) -> str:
        largest = largest_first(self.rows, "exact")[:15]
        text = f"{self._what()}; the cells with the largest exact effects:"
        return html_table(largest, text, floats="{:.3g}")

    def _what(self) -> str:
        return (
            f"{len(self.rows)} cells, {self.n_pairs} pairs: rank correlation {self.spearman:.2f} "
            f"[{self.low:.2f}, {self.high:.2f}], slope {self.slope:.2f}, "
            f"{self.top:.0%} of the largest found"
        )


def compare(exact: Effects, estimated: Effects, *, n_boot: int = 200, seed: int = 0) -> Agreement:
    """Put two tables of one grid side by side.

    Raises `InputError` unless both are of the same model, pairs, metric, plan and cells.
    """
    for name in ("model_digest", "metric", "plan"):
        if getattr(exact, name) != getattr(estimated, name):
            raise InputError(
                f"two tables of different {name} cannot be compared: {getattr(exact, name)} and "
                f"{getattr(estimated, name)}"
            )
    keys = list(KEYS)
    if not exact.rows[keys].equals(estimated.rows[keys]) or not exact.per_prompt["pair"].equals(
        estimated.per_prompt["pair"]
    ):
        raise InputError(
            f"the tables have other cells or pairs ({len(exact.rows)} cells x {exact.n_pairs} pairs, "
            f"{len(estimated.rows)} x {estimated.n_pairs}): give both the same cells and pairs"
        )
    if len(exact.rows) < 3:
        raise InputError(f"a rank correlation needs at least 3 cells, not {len(exact.rows)}")
    rows = exact.rows[["site", "layer", "head", "column", "label"]].copy()
    rows["exact"], rows["estimated"] = exact.rows["mean"], estimated.rows["mean"]
    rows["error"] = rows["estimated"] - rows["exact"]
    x, y = rows["exact"].to_numpy(float), rows["estimated"].to_numpy(float)
    each = [t.per_prompt["effect"].to_numpy(float).reshape(len(x), -1) for t in (exact, estimated)]
    n_pairs = exact.n_pairs
    draws = stream(seed, "patching", "agreement").integers(n_pairs, size=(n_boot, n_pairs))
    again = [_spearman(each[0][:, d].mean(1), each[1][:, d].mean(1)) for d in draws]
    edge = (1 - LEVEL) / 2
    low, high = np.quantile(again, [edge, 1 - edge]) if n_boot else (np.nan, np.nan)
    size = min(10, len(x))
    largest = [set(np.argsort(-np.abs(v), kind="stable")[:size].tolist()) for v in (x, y)]
    return Agreement(
        rows,
        _spearman(x, y),
        float(low),
        float(high),
        float(stats.pearsonr(x, y).statistic) if np.ptp(x) and np.ptp(y) else float("nan"),
        float(x @ y / (x @ x)),
        len(largest[0] & largest[1]) / size,
        n_pairs,
    )


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    if not np.ptp(x) or not np.ptp(y):
        return float("nan")
    return float(stats.spearmanr(x, y).statistic)


ALONG = ("site", "inputs")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Attributions(Effects):
    """Estimated effects, in the tables of `Effects` and in the same order as `patch_cells` gives.

    n_steps: of integrated gradients; 0 for the slope at the unpatched run alone. along: what was moved
    from one run to the other in those steps.
    """

    n_steps: int = 0
    along: str = "site"

    def _what(self) -> str:
        how = f"integrated over {self.n_steps} steps along the {self.along}" if self.n_steps else (
            "gradient x difference"
        )  # fmt: skip
        return f"{super()._what()}, estimated by {how}"


def attribute_cells(
    model: Model,
    pairs: Sequence[EncodedPair],
    cells: Sequence[Cell],
    columns: Sequence[Column] = (),
    *,
    metric: Metric | None = None,
    plan: Plan | None = None,
    n_steps: int = 0,
    along: str = "site",
    n_boot: int = 1000,
    n_flips: int = 2000,
    settings: Settings | None = None,
    seed: int = 0,
) -> Attributions:
    """Estimate every cell in every pair; takes the cells, metrics and plans of `patch_cells`.

    n_steps: 0 for one gradient at the unpatched run; else the slope is averaged over that many points
    (Gauss and Legendre's) between the unpatched run and the values put in its place. along: "site" moves one site at a time,
    all positions and heads of it together, so that over all its cells the estimates add up to the
    exact effect of patching the whole site, as n_steps grows; "inputs" moves the embeddings of the
    prompt, for all sites at once, and needs paired values.
    Raises `InputError` for a quantised model, a metric without gradient, and what `patch_cells` refuses.
    """
    metric, plan, settings = (
        metric or LogProbDifference(),
        plan or Plan(seed=seed),
        settings or Settings(),
    )
    if along not in ALONG:
        raise unknown("way to integrate along", along, ALONG)
    if n_steps < 0:
        raise InputError(f"n_steps is 0 (one gradient) or more, not {n_steps}")
    if n_steps and along == "inputs" and plan.values != "paired":
        raise InputError(
            f"along='inputs' leads to the other prompt, but values={plan.values!r} are not its own: "
            "use along='site'"
        )
    if not cells or not pairs:
        raise InputError(f"nothing to attribute: {len(cells)} cells, {len(pairs)} pairs")
    if n_steps and along == "inputs" and any(pair.matched is not None for pair in pairs):
        raise InputError(
            "along='inputs' leads from one prompt to the other, and these differ in length: use "
            "along='site'"
        )
    check_resampling(pairs, n_boot, n_flips)
    check_differentiable(model)
    check_matched(pairs, cells)
    check_room(pairs, model)
    trunk = Trunk(model.hf, model.pad_id)
    at_once = settings.tokens_at_once(trunk.device)
    scorer = Scorer(trunk, metric, pairs, columns, plan, at_once)
    ordered = [cell for members in by_site(cells).values() for cell in members]
    places = sorted({part.place for cell in ordered for part in cell.parts})
    longest = [p.n_prompt + len(p.safe) + len(p.defect) for p in pairs]
    batches = groups(longest, at_once // max(1, n_steps))
    if plan.values == "mean":
        for members in batches:
            scorer.add_means(members, places, model.sinks.rule)
    found = np.zeros((len(ordered), len(pairs)))
    unpatched, other = np.empty((2, len(pairs)))
    with bar("attribution", total=len(pairs)) as shown:
        for members in batches:
            prepared = prepare_whole(scorer, members, places)
            unpatched[list(members)], other[list(members)] = prepared.unpatched, prepared.other
            estimates = _estimates(scorer, prepared, places, n_steps, along)
            found[:, list(members)] = _per_cell(scorer, ordered, prepared, estimates)
            shown.update(len(members))
    check_difference(metric.name, model.name, unpatched, other, model.dtype)
    effects = summarise(
        model, metric, plan, pairs, ordered, unpatched=unpatched, other=other,
        patched=unpatched + found, n_boot=n_boot, n_flips=n_flips, seed=seed,
    )  # fmt: skip
    return Attributions(**vars(effects), n_steps=n_steps, along=along)


def _estimates(
    scorer: Scorer, prepared: Prepared, places: Sequence[Place], n_steps: int, along: str
) -> dict[Place, Tensor]:
    """Per place, what each position (and head) adds to the metric: `[batch, pos]` or with heads."""
    kept = prepared.kept
    changes = {place: prepared.values[place] - kept.at(place) for place in places}
    if not n_steps:
        slope = gradients(scorer, prepared, places)
    elif along == "inputs":
        slope = _along_inputs(scorer, prepared, places, n_steps)
    else:
        slope = _along_sites(scorer, prepared, changes, n_steps)
    return {
        place: _summed(place, changes[place] * slope[place].to(changes[place])) for place in places
    }


def _along_inputs(
    scorer: Scorer, prepared: Prepared, places: Sequence[Place], n_steps: int
) -> dict[Place, Tensor]:
    assert prepared.given is not None
    start, end = prepared.kept.streams[0], prepared.given.streams[0]
    entry = torch.cat([start + at * (end - start) for at, _ in _nodes(n_steps)])
    found = slopes(scorer, prepared, places, entry, lambda _, x: x, copies=n_steps)
    return {place: _averaged(slope, n_steps) for place, slope in found.items()}


def _along_sites(
    scorer: Scorer, prepared: Prepared, changes: dict[Place, Tensor], n_steps: int
) -> dict[Place, Tensor]:
    kept, found = prepared.kept, dict[Place, Tensor]()
    for place, change in changes.items():
        moved = change * _within(scorer, prepared, change)
        hold = partial(_held, torch.cat([kept.at(place) + at * moved for at, _ in _nodes(n_steps)]))
        entry = kept.streams[place[1]].repeat(n_steps, 1, 1)
        slope = slopes(scorer, prepared, [place], entry, hold, place[1], n_steps)[place]
        found[place] = _averaged(slope, n_steps)
    return found


def _averaged(slope: Tensor, n_steps: int) -> Tensor:
    weights = torch.tensor([weight for _, weight in _nodes(n_steps)]).to(slope)
    return torch.tensordot(weights, slope.unflatten(0, (n_steps, -1)), 1)


def _held(values: Tensor, _: Place, found: Tensor) -> Tensor:
    return values.to(found)


def _within(scorer: Scorer, prepared: Prepared, like: Tensor) -> Tensor:
    """1 at positions that a patch of the whole site changes, 0 before them and in padding."""
    inside = chosen(scorer, prepared, EVERYWHERE).to(like)
    return inside.reshape(*inside.shape, *(1,) * (like.ndim - 2))


def _nodes(n_steps: int) -> list[tuple[float, float]]:
    """Points between 0 and 1 and their weights, by Gauss and Legendre's rule: few go a long way."""
    points, weights = np.polynomial.legendre.leggauss(n_steps)
    return [(float(p + 1) / 2, float(w) / 2) for p, w in zip(points, weights, strict=True)]


def _summed(place: Place, product: Tensor) -> Tensor:
    """Over everything but batch, position and head."""
    return product.sum(-1).double().cpu()


def _per_cell(
    scorer: Scorer,
    cells: Sequence[Cell],
    prepared: Prepared,
    estimates: dict[Place, Tensor],
) -> Float[np.ndarray, "cell pair"]:
    """Estimates added up over the parts of each cell; a position in two parts of a place counts once."""
    found = np.zeros((len(cells), len(prepared.pairs)))
    numbers = {part.column for cell in cells for part in cell.parts}
    where = {number: chosen(scorer, prepared, number).cpu() for number in numbers}
    for c, cell in enumerate(cells):
        masks: dict[Place, Tensor] = {}
        for part in cell.parts:
            values = estimates[part.place]
            mask = masks.setdefault(part.place, torch.zeros(values.shape, dtype=torch.bool))
            if part.head is None:
                mask[where[part.column]] = True
            else:
                mask[..., part.head] |= where[part.column]
        for place, mask in masks.items():
            found[c] += torch.where(mask, estimates[place], 0.0).flatten(1).sum(1).numpy()
    return found
