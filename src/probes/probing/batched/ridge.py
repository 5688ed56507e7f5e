"""Ridge regression on the labels at every problem, fold and strength: a closed form to compare with."""

from collections.abc import Sequence

import numpy as np
import torch

from probes.foundation.errors import InputError
from probes.probing.batched.closed import Fold, Linear, fit_closed, solve_penalised
from probes.probing.batched.problems import MEMORY, LinearFits


def fit_ridge(
    X: Sequence[np.ndarray] | np.ndarray,
    y: np.ndarray,
    train: np.ndarray | None = None,
    *,
    alpha: Sequence[float] = (1.0,),
    device: str = "cpu",
    memory: int = MEMORY,
) -> LinearFits:
    """The weights of scikit-learn's `RidgeClassifier(alpha)`: targets -1 and 1, free intercept.

    alpha: penalties on |w|^2, all positive. The other arguments as in `fit_logistic`.
    """
    strengths = tuple(float(a) for a in alpha)
    if not strengths or not all(0 < a < float("inf") for a in strengths):
        raise InputError(
            f"alpha holds positive numbers, for instance (1.0, 100.0); saw {strengths}"
        )

    def solve(fold: Fold) -> Linear:
        target = torch.where(fold.y, 1.0, -1.0).to(fold.X)
        pull = (target - target.mean()) @ fold.X
        coef = torch.stack(
            [
                solve_penalised(fold, fold.together, pull, pull.new_full((len(pull),), a))
                for a in strengths
            ],
            dim=1,
        )
        return coef, target.mean() - (coef * fold.mean[:, None]).sum(-1)

    return fit_closed(X, y, train, strengths, solve, "ridge probes", device=device, memory=memory)
