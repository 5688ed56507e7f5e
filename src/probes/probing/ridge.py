"""Least squares on the labels with a penalty: as supervised as logistic regression, in closed form."""

from typing import Any, no_type_check

from probes.probing.batched.ridge import fit_ridge
from probes.probing.linear import LinearProbe


class RidgeProbe(LinearProbe):
    """The weights of scikit-learn's `RidgeClassifier`: targets -1 and 1, penalty alpha on |w|^2.

    After `fit`: `coef_` (1, feature), `intercept_` (1,), `classes_`, `n_features_in_`.
    """

    alpha: float

    @no_type_check  # scikit-learn asks that __init__ stores whatever it is given
    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def fit(self, X: Any, y: Any) -> "RidgeProbe":
        """Needs finite X (row, feature) and y with exactly two classes."""
        rows, positive = self._rows(X, y)
        found = fit_ridge(rows[None], positive, alpha=(float(self.alpha),))
        self._learn(found.coef[0, 0, 0], float(found.intercept[0, 0, 0]))
        return self
