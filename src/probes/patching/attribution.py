"""What patching each cell would do, estimated from slopes: a whole grid for the price of one prompt.

The estimate is (gradient of the metric at the unpatched activation) x (change that the patch would make),
summed over the cell (Nanda 2023; Kramár et al. 2024, arXiv 2403.00745). It is exact where the model is
linear between the two activations, and can be far off where it is not: `agreement.compare` says how far.
Integrated gradients (Sundararajan et al. 2017; for patching Hanna et al. 2024, arXiv 2403.17806) average
the slope along the way from one activation to the other. TransformerLens has the plain estimate for heads
and MLPs of one pair (`tools.analysis.attribution_patching`), which the tests compare with.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probes.foundation.errors import InputError, unknown
from probes.foundation.progress import bar
from probes.models.loading import Model
from probes.patching.asked import check_resampling, check_room
from probes.patching.canary import TOLERANCE, check_difference
from probes.patching.engine.scoring import Prepared, Scorer
from probes.patching.engine.trunk import Place, Trunk
from probes.patching.exact import by_site
from probes.patching.found import Effects, summarise
from probes.patching.gradients import check_differentiable, gradients, slopes
from probes.patching.jobs import Settings
from probes.patching.measures import LogProbDifference, Metric
from probes.patching.pairs import EncodedPair, check_position_by_position
from probes.patching.parts import EVERYWHERE, Cell
from probes.patching.sources import Plan
from probes.patching.spans import Column
from probes.patching.whole_batch import chosen, groups

ALONG = ("site", "inputs")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Attributions(Effects):
    """Estimated effects, in the tables of `Effects` and in the same order as `patch_cells` gives.

    n_steps: of integrated gradients; 0 for the slope at the unpatched run alone. along: what was moved
    from one run to the other in those steps.
    """

    n_steps: int = 0
    along: str = "site"

    def __repr__(self) -> str:
        return super().__repr__().replace("Effects(", "Attributions(", 1)

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
    check_resampling(pairs, n_boot, n_flips)
    check_differentiable(model)
    check_room(pairs, model)
    check_position_by_position(pairs)
    trunk = Trunk(model.hf, model.pad_id)
    at_once = settings.tokens_at_once(trunk.device)
    scorer = Scorer(trunk, metric, pairs, columns, plan, at_once)
    ordered = [cell for members in by_site(cells).values() for cell in members]
    places = sorted({part.place for cell in ordered for part in cell.parts})
    longest = [p.n_prompt + len(p.safe) + len(p.defect) for p in pairs]
    batches = groups(longest, at_once // max(1, n_steps))
    if plan.values == "mean":
        for members in batches:
            scorer.add_means(members, places)
    found = np.zeros((len(ordered), len(pairs)))
    unpatched, other = np.empty((2, len(pairs)))
    with bar("attribution", total=len(pairs)) as shown:
        for members in batches:
            prepared = _with_own_values(scorer, scorer.prepare(members, places), places)
            unpatched[list(members)], other[list(members)] = prepared.unpatched, prepared.other
            estimates = _estimates(scorer, prepared, places, n_steps, along)
            found[:, list(members)] = _per_cell(ordered, columns, prepared, estimates)
            shown.update(len(members))
    check_difference(metric.name, model.name, unpatched, other, model.dtype)
    effects = summarise(
        model=model.name, model_digest=model.digest, metric=metric.name, plan=plan,
        names=[pair.name for pair in pairs], cells=ordered, unpatched=unpatched, other=other,
        patched=unpatched + found, placebo=None, n_boot=n_boot, n_flips=n_flips,
        floor=TOLERANCE[model.dtype], seed=seed,
    )  # fmt: skip
    given = {field.name: getattr(effects, field.name) for field in dataclasses.fields(effects)}
    return Attributions(**given, n_steps=n_steps, along=along)


def _with_own_values(scorer: Scorer, prepared: Prepared, places: Sequence[Place]) -> Prepared:
    """What stands at the places in the unpatched run is needed too: a change starts from it."""
    with torch.no_grad():
        kept = scorer.trunk.record(list(prepared.kept.batch.rows), places)
    return dataclasses.replace(prepared, kept=kept)


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
        moved = change * _within(prepared, change)
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


def _within(prepared: Prepared, like: Tensor) -> Tensor:
    """1 at positions that a patch of the whole site changes, 0 before them and in padding."""
    inside = chosen(prepared, (), EVERYWHERE).to(like)
    return inside.reshape(*inside.shape, *(1,) * (like.ndim - 2))


def _nodes(n_steps: int) -> list[tuple[float, float]]:
    """Points between 0 and 1 and their weights, by Gauss and Legendre's rule: few go a long way."""
    points, weights = np.polynomial.legendre.leggauss(n_steps)
    return [(float(p + 1) / 2, float(w) / 2) for p, w in zip(points, weights, strict=True)]


def _summed(place: Place, product: Tensor) -> Tensor:
    """Over everything but batch, position and head."""
    return product.sum(-1).double().cpu()


def _per_cell(
    cells: Sequence[Cell],
    columns: Sequence[Column],
    prepared: Prepared,
    estimates: dict[Place, Tensor],
) -> Float[np.ndarray, "cell pair"]:
    """Estimates added up over the parts of each cell; a position in two parts of a place counts once."""
    found = np.zeros((len(cells), len(prepared.pairs)))
    numbers = {part.column for cell in cells for part in cell.parts}
    where = {number: chosen(prepared, columns, number).cpu() for number in numbers}
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
