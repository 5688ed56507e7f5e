"""Rates of behaviour with intervals: how often, and how often it could have been."""

import numpy as np
from numpy.typing import ArrayLike

from probes.evaluation.auroc import as_labels, complete
from probes.evaluation.bootstrap import Estimate, interval, mean_statistic, wilson
from probes.foundation.errors import InputError


def rate(
    successes: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    n_boot: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """The share of True with its interval: a bootstrap over groups, or Wilson's.

    successes: row, bool. groups: row; rows of one group (samples of one prompt, prompts of one
    pair) are drawn together. Without groups, rows are independent and the interval is Wilson's.
    At 0 of n and n of n, and wherever else all resamples agree, a bootstrap has zero width and
    would claim certainty; the interval is then Wilson's with as many trials as there are groups.
    Raises `InputError` for no rows.
    """
    rows = as_labels(successes)
    if len(rows) == 0:
        raise InputError("a rate of no rows does not exist: give at least one")
    if groups is None:
        low, high = wilson(int(rows.sum()), len(rows), level)
        return Estimate(float(rows.mean()), low, high, len(rows))
    n_groups = len(np.unique(complete(groups, "groups")))
    if np.shape(groups) != rows.shape:
        raise InputError(f"{len(rows)} rows and groups of shape {np.shape(groups)}: give one each")
    estimate = interval(mean_statistic(rows), groups, n_boot=n_boot, seed=seed, level=level)
    if estimate.low < estimate.high:
        return estimate
    return wilson_share(estimate, n_groups, level)


def wilson_share(estimate: Estimate, n_trials: int, level: float) -> Estimate:
    """The same rate with Wilson's interval for this many independent trials."""
    low, high = wilson(round(estimate.value * n_trials), n_trials, level)
    return Estimate(estimate.value, min(low, estimate.value), max(high, estimate.value), estimate.n)
