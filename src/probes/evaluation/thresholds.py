"""What a score catches at a threshold that a given share of the negatives lies above."""

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from probes.evaluation.auroc import labelled, require_both_classes
from probes.evaluation.bootstrap import Estimate
from probes.evaluation.proportions import rate


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
