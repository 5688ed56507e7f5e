"""Linear discriminants, and the whitened mean difference that is the same direction, all at once."""

from collections.abc import Sequence

import numpy as np
import torch

from probes.foundation.errors import InputError
from probes.probing.batched.closed import Fold, Linear, fit_closed, solve_penalised, trace_within
from probes.probing.batched.problems import MEMORY, LinearFits


def fit_discriminant(
    X: Sequence[np.ndarray] | np.ndarray,
    y: np.ndarray,
    train: np.ndarray | None = None,
    *,
    shrinkage: Sequence[float] = (0.1,),
    prior: bool = True,
    device: str = "cpu",
    memory: int = MEMORY,
) -> LinearFits:
    """The weights of scikit-learn's `LinearDiscriminantAnalysis(solver="lsqr", shrinkage=s)`.

    The within-class covariance is shrunk to its mean variance by s, in (0, 1]; at 1 the direction is
    that of the plain mean difference. prior: whether the intercept holds the log odds of the classes;
    without, zero lies midway between the means (the covariance-whitened mean difference, Marks and
    Tegmark 2023). The other arguments as in `fit_logistic`.
    """
    strengths = tuple(float(s) for s in shrinkage)
    if not strengths or not all(0 < s <= 1 for s in strengths):
        raise InputError(
            f"shrinkage lies above 0 and up to 1; saw {strengths}. Without any, a covariance of more "
            "features than rows has no inverse"
        )

    def solve(fold: Fold) -> Linear:
        low, high = fold.class_means
        n, d = fold.X.shape[1:]
        variance = trace_within(fold) / (n * d)
        variance = torch.where(variance > 0, variance, 1.0)  # nothing varies: all weights are zero
        coef = []
        for s in strengths:
            if s == 1:
                coef.append((high - low) / variance[:, None])
                continue
            ridge = n * s * variance / (1 - s)
            found = solve_penalised(fold, fold.by_class, high - low, ridge)
            coef.append(found * n / (1 - s))
        stacked = torch.stack(coef, dim=1)
        odds = torch.logit(fold.y.to(fold.X.dtype).mean()) if prior else 0.0
        return stacked, odds - (stacked * (low + high)[:, None]).sum(-1) / 2

    return fit_closed(
        X, y, train, strengths, solve, "discriminant probes", device=device, memory=memory
    )
