"""The gradient of a metric at every activation that a cell could patch, from one pass back and forth.

A zero that asks for its gradient is added to each activation, through the same edits by which values are
patched in. What comes back is therefore the slope of exactly what exact patching moves.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from probes.foundation.errors import InputError, StageError
from probes.models.loading import Model
from probes.patching.engine.scoring import Prepared, Scorer
from probes.patching.engine.trunk import Place
from probes.patching.whole_batch import run_from, score


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
