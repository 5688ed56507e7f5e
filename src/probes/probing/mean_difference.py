"""The probe with nothing to tune: the direction from the mean of one class to that of the other."""

from typing import Any, no_type_check

import numpy as np

from probes.foundation.errors import InputError
from probes.probing.batched.discriminant import fit_discriminant
from probes.probing.linear import LinearProbe, midpoint, varying


class MeanDifferenceProbe(LinearProbe):
    """Score = projection on mean(positive) - mean(negative), zero at the midpoint of the means.

    A scikit-learn binary classifier. shrinkage: None for the plain difference; a number in (0, 1]
    whitens it by the within-class covariance, shrunk so far towards its mean variance.
    After `fit`: `coef_` (1, feature) in activation units, `intercept_` (1,), `classes_`,
    `n_features_in_`. Features that do not vary get weight zero. MacDiarmid et al. (2024); Marks and
    Tegmark (2023).
    """

    shrinkage: float | None

    @no_type_check  # scikit-learn asks that __init__ stores whatever it is given
    def __init__(self, shrinkage: float | None = None) -> None:
        self.shrinkage = shrinkage

    def fit(self, X: Any, y: Any) -> "MeanDifferenceProbe":
        """Needs finite X (row, feature) and y with exactly two classes."""
        rows, positive = self._rows(X, y)
        if self.shrinkage is not None:
            if not 0 < self.shrinkage <= 1:
                raise InputError(f"shrinkage is None or lies in (0, 1]; saw {self.shrinkage}")
            found = fit_discriminant(
                rows[None], positive, shrinkage=(float(self.shrinkage),), prior=False
            )
            self._learn(found.coef[0, 0, 0], float(found.intercept[0, 0, 0]))
            return self
        means = [rows[~positive].mean(axis=0), rows[positive].mean(axis=0)]
        direction = np.where(varying(rows), means[1] - means[0], 0.0)
        self._learn(direction, midpoint(direction, rows, positive))
        return self
