"""A direction found without labels: the two answers to a question must get opposite, sure scores."""

from typing import Any, no_type_check

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from probes.evaluation.auroc import as_labels
from probes.foundation.errors import InputError
from probes.foundation.seeds import stream
from probes.probing.linear import LinearProbe, pairs_of, varying


class ContrastConsistentProbe(LinearProbe):
    """Contrast-consistent search: p(x) near 1 - p(other), and neither near 1/2; labels turn the sign.

    n_tries: random beginnings, of which the lowest loss is kept. max_iter: of L-BFGS, each. seed: of
    the beginnings. After `fit`: `coef_` (1, feature), `intercept_` (1,), `loss_` (mean over pairs, 0 to
    0.25 where every score is 1/2), `n_iter_`. Features that do not vary get weight zero. Burns et al. (2022).
    """

    n_tries: int
    max_iter: int
    seed: int

    @no_type_check  # scikit-learn asks that __init__ stores whatever it is given
    def __init__(self, n_tries: int = 5, max_iter: int = 200, seed: int = 0) -> None:
        self.n_tries = n_tries
        self.max_iter = max_iter
        self.seed = seed

    def fit(self, X: Any, y: Any, pairs: Any = None, side: Any = None) -> "ContrastConsistentProbe":
        """Needs finite X (row, feature), y with two classes and pairs as in `pairs_of`.

        side: row, bool: which of the two phrasings ("yes" or "no") a row is. The mean of each side is
        then taken off, so that the phrasing cannot be what is found. It must not equal the labels.
        """
        if self.n_tries < 1 or self.max_iter < 1:
            raise InputError(
                f"n_tries ({self.n_tries}) and max_iter ({self.max_iter}) are at least 1"
            )
        rows, positive = self._rows(X, y)
        members = pairs_of(positive, pairs)
        centre = rows.mean(axis=0)
        kept = varying(rows)
        shown = np.where(kept, rows - centre, 0.0)
        if side is not None:
            sides = as_labels(side)
            if (sides == positive).all() or (sides != positive).all():
                raise InputError(
                    "side equals the labels in every row: taking its means off would take the labels "
                    "off. Give which phrasing each row is, not which answer is right"
                )
            for one in (sides, ~sides):
                shown[one] -= shown[one].mean(axis=0)
        scale = float(shown.std()) or 1.0
        low, high = (shown[members[:, k]] / scale for k in (0, 1))
        start = stream(int(self.seed), "ccs").normal(size=(int(self.n_tries), rows.shape[1] + 1))
        found = [self._descend(one, low, high) for one in start]
        self.loss_, best, self.n_iter_ = min(found, key=lambda one: one[0])
        direction = np.where(kept, best[:-1] / scale, 0.0)
        intercept = float(best[-1])
        scores = rows @ direction
        if scores[positive].mean() < scores[~positive].mean():
            direction, intercept = -direction, -intercept
        self._learn(direction, intercept - float(centre @ direction))
        return self

    def _descend(
        self, start: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> tuple[float, np.ndarray, int]:
        found = minimize(
            _loss,
            start / len(start) ** 0.5,
            args=(low, high),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": int(self.max_iter), "ftol": 1e-12, "gtol": 1e-7},
        )
        return float(found.fun), np.asarray(found.x), int(found.nit)


def _loss(weights: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean over pairs of inconsistency and unsureness, with a slight penalty; and its gradient."""
    coef, n = weights[:-1], len(low)
    first, second = expit(low @ coef + weights[-1]), expit(high @ coef + weights[-1])
    together, lower = first + second - 1, np.minimum(first, second)
    slight = 1e-3 / len(weights)
    value = float((together**2 + lower**2).mean() + slight * (coef**2).sum())
    from_first = 2 * (together + lower * (first <= second)) * first * (1 - first) / n
    from_second = 2 * (together + lower * (second < first)) * second * (1 - second) / n
    gradient = np.empty_like(weights)
    gradient[:-1] = from_first @ low + from_second @ high + 2 * slight * coef
    gradient[-1] = from_first.sum() + from_second.sum()
    return value, gradient
