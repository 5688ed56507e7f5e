"""Rates with intervals: how often something holds, and how much a score catches at a threshold set on the negatives."""

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from probes.evaluation.auroc import as_labels, complete, labelled, require_both_classes
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


@dataclasses.dataclass(frozen=True)
class Recall:
    """The share of positives caught, and the false-alarm rate that it really stands for.

    recall: with its interval over positives, the threshold held fixed. threshold: alarm if
    score > threshold. false_positive_rate: what the negatives give at that threshold, at most
    `requested`. resolution: 1 / n_negative, the smallest rate above zero that these negatives can
    show; where it exceeds `requested`, the true rate may be far above it.
    """

    recall: Estimate
    threshold: float
    false_positive_rate: float
    requested: float
    resolution: float
    n_negative: int

    @property
    def resolved(self) -> bool:
        """Whether there are enough negatives to show the requested rate at all."""
        return self.resolution <= self.requested

    def __str__(self) -> str:
        note = (
            "" if self.resolved else f"; {self.n_negative} negatives resolve {self.resolution:.1%}"
        )
        return f"recall {self.recall} at {self.false_positive_rate:.1%} false positives{note}"

    def as_row(self) -> dict[str, Any]:
        return {
            "recall": self.recall.value,
            "recall_low": self.recall.low,
            "recall_high": self.recall.high,
            "threshold": self.threshold,
            "false_positive_rate": self.false_positive_rate,
            "false_positive_rate_resolution": self.resolution,
        }


def recall_at(
    y: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    false_positive_rate: float = 0.01,
    n_boot: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Recall:
    """Recall with the threshold set on the negatives alone: the lowest that keeps to the rate.

    y: row, True = positive. scores: row, higher = more suspect. groups: row, for the interval
    (`rate`). Negatives tied with the threshold raise no alarm, so the rate is never exceeded.
    Raises `InputError` if a class is absent.
    """
    labels, values = labelled(y, scores)
    require_both_classes(labels)
    negatives = np.sort(values[~labels])[::-1]
    allowed = math.floor(false_positive_rate * len(negatives) + 1e-9)
    threshold = float(negatives[min(allowed, len(negatives) - 1)])
    caught = values[labels] > threshold
    positive_groups = None if groups is None else np.asarray(groups)[labels]
    return Recall(
        recall=rate(caught, positive_groups, n_boot=n_boot, seed=seed, level=level),
        threshold=threshold,
        false_positive_rate=float((negatives > threshold).mean()),
        requested=false_positive_rate,
        resolution=1 / len(negatives),
        n_negative=len(negatives),
    )
