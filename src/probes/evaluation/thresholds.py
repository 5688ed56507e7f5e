"""What a score is worth at a threshold: alarms on benign prompts, and what is caught at that price."""

import dataclasses
import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from probes.evaluation.auroc import as_scores, complete, labelled, require_both_classes
from probes.evaluation.bootstrap import Estimate
from probes.evaluation.proportions import rate
from probes.foundation.errors import InputError
from probes.foundation.html import html_table


@dataclasses.dataclass(frozen=True)
class FalseAlarms:
    """Alarms on held-out rows, where the threshold was set elsewhere.

    threshold: alarm if score > threshold. requested: the share of benign fit rows that may lie above
    it; n_benign: how many of those there were. recall: share of held-out positives with an alarm.
    rows: one per negative set: `negative_set`, `n`, `value`, `low`, `high` (share with an alarm).
    worst, negative_set: the largest of these shares, and whose it is.
    """

    threshold: float
    requested: float
    n_benign: int
    recall: Estimate
    worst: Estimate
    negative_set: str
    rows: pd.DataFrame

    def __str__(self) -> str:
        return (
            f"at a threshold for {self.requested:.0%} of {self.n_benign} benign fit rows: recall "
            f"{self.recall}, alarms on {self.worst} of {self.negative_set!r}"
        )

    def _repr_html_(self) -> str:
        return html_table(self.rows, self)


def false_alarms(
    benign_scores: ArrayLike,
    scores: ArrayLike,
    y: ArrayLike,
    negative_set: ArrayLike,
    groups: ArrayLike,
    *,
    requested: float = 0.01,
    n_boot: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> FalseAlarms:
    """Set the threshold on benign fit rows, then count alarms in each held-out set of negatives.

    benign_scores: of rows that were fitted and did not defect; at most the requested share of them
    lies above the threshold. scores, y, negative_set, groups: row, held out, as in `worst_set`.
    Raises `InputError` for no benign rows, scores that are not finite, or a class that is absent.
    """
    labels, values = labelled(y, scores)
    benign = as_scores(benign_scores)
    sets, codes = complete(negative_set, "set names"), complete(groups, "groups")
    if len(benign) == 0 or not np.isfinite(benign).all():
        raise InputError(
            f"a threshold is set on finite scores of benign rows; saw {len(benign)} rows, "
            f"{int(np.isfinite(benign).sum())} of them finite"
        )
    if labels.all() or not labels.any():
        raise InputError(
            f"saw {int(labels.sum())} positives in {len(labels)} held-out rows: alarms need both "
            "positives and negatives"
        )
    ordered = np.sort(benign)[::-1]
    allowed = math.floor(requested * len(ordered) + 1e-9)
    threshold = float(ordered[min(allowed, len(ordered) - 1)])
    alarm = values > threshold

    def share(rows: np.ndarray) -> Estimate:
        return rate(alarm[rows], codes[rows], n_boot=n_boot, seed=seed, level=level)

    shares: dict[str, Estimate] = {
        str(name): share(~labels & (sets == name)) for name in sorted(set(sets[~labels].tolist()))
    }
    worst = max(shares, key=lambda name: shares[name].value)
    rows: list[dict[str, Any]] = [
        {"negative_set": name, **estimate.as_row(), "worst": name == worst}
        for name, estimate in shares.items()
    ]
    return FalseAlarms(
        threshold=threshold,
        requested=requested,
        n_benign=len(benign),
        recall=share(labels),
        worst=shares[worst],
        negative_set=worst,
        rows=pd.DataFrame(rows),
    )


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
