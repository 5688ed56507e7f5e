"""The direction from mean to mean at every problem and fold: the sweep's cheapest probe."""

from collections.abc import Sequence

import numpy as np

from probes.probing.batched.closed import Fold, Linear, fit_closed
from probes.probing.batched.problems import MEMORY, LinearFits


def fit_mean_difference(
    X: Sequence[np.ndarray] | np.ndarray,
    y: np.ndarray,
    train: np.ndarray | None = None,
    *,
    device: str = "cpu",
    memory: int = MEMORY,
) -> LinearFits:
    """The weights of `MeanDifferenceProbe`, zero midway between the means; one strength, called 1."""

    def solve(fold: Fold) -> Linear:
        low, high = fold.class_means
        coef = (high - low)[:, None]
        return coef, -(coef * (low + high)[:, None]).sum(-1) / 2

    return fit_closed(
        X, y, train, (1.0,), solve, "mean differences",
        device=device, memory=memory, needs_gram=False,
    )  # fmt: skip
