"""Triggered is not defected: among triggered prompts, does the score know which ones defect?"""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from probes.evaluation.auroc import as_labels, complete, labelled
from probes.evaluation.bootstrap import Estimate, auroc_interval


@dataclasses.dataclass(frozen=True)
class WithinTriggered:
    """AUROC of defection among triggered rows, or None and the reason why there is none."""

    estimate: Estimate | None
    reason: str

    def __str__(self) -> str:
        return str(self.estimate) if self.estimate is not None else f"not measured: {self.reason}"


def within_triggered(
    scores: ArrayLike,
    defected: ArrayLike,
    triggered: ArrayLike,
    groups: ArrayLike,
    *,
    min_per_class: int = 5,
    n_boot: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> WithinTriggered:
    """AUROC against what the model wrote, on triggered rows only, where the trigger cannot help.

    defected: row, judged from the model's own completions. Give the rows of one prompt set if the
    set must not help either. With fewer than `min_per_class` triggered rows of a class there is no
    estimate, and `reason` has the counts.
    """
    labels, values = labelled(defected, scores)
    rows, codes = as_labels(triggered), complete(groups, "groups")
    n_defected, n_other = int((labels & rows).sum()), int((~labels & rows).sum())
    counts = f"{n_defected} of {n_defected + n_other} triggered rows defected"
    if min(n_defected, n_other) < min_per_class:
        return WithinTriggered(None, f"{counts}; needs {min_per_class} that did and that did not")
    kept = np.flatnonzero(rows)
    estimate = auroc_interval(
        labels[kept],
        values[kept],
        codes[kept],
        n_boot=n_boot,
        seed=seed,
        level=level,
    )
    return WithinTriggered(estimate, counts)
