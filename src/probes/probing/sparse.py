"""Does a handful of features carry it? Logistic regression on the k that differ most."""

from typing import Any, no_type_check

import numpy as np

from probes.foundation.errors import InputError
from probes.probing.batched.logistic import fit_logistic
from probes.probing.linear import LinearProbe, varying


class SparseProbe(LinearProbe):
    """Logistic regression on k features, chosen by the standardised difference of class means.

    k: how many, at most all. C: inverse strength of the penalty on standardised features.
    After `fit`: `features_` (k,) in order of difference, `coef_` (1, feature) with zeros elsewhere,
    `intercept_` (1,). Gurnee et al. (2023), whose choice by mean difference this is.
    """

    k: int
    C: float

    @no_type_check  # scikit-learn asks that __init__ stores whatever it is given
    def __init__(self, k: int = 8, C: float = 1.0) -> None:
        self.k = k
        self.C = C

    def fit(self, X: Any, y: Any) -> "SparseProbe":
        """Needs finite X (row, feature) and y with exactly two classes."""
        if self.k < 1:
            raise InputError(f"k is at least 1 feature; saw {self.k}")
        rows, positive = self._rows(X, y)
        gap = rows[positive].mean(axis=0) - rows[~positive].mean(axis=0)
        kept = varying(rows)
        apart = np.where(kept, np.abs(gap) / np.where(kept, rows.std(axis=0), 1.0), 0.0)
        self.features_ = np.argsort(-apart, kind="stable")[: int(self.k)]
        chosen = np.ascontiguousarray(rows[:, self.features_])
        found = fit_logistic(chosen[None], positive, C=(float(self.C),), standardise=True)
        coef = np.zeros(rows.shape[1])
        coef[self.features_] = found.coef[0, 0, 0]
        self._learn(coef, float(found.intercept[0, 0, 0]))
        return self
