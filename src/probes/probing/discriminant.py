"""Fisher's discriminant: the best direction where both classes are Gaussians of one shape."""

from typing import Any, no_type_check

from probes.probing.batched.discriminant import fit_discriminant
from probes.probing.linear import LinearProbe


class DiscriminantProbe(LinearProbe):
    """The weights of scikit-learn's `LinearDiscriminantAnalysis(solver="lsqr", shrinkage=s)`.

    shrinkage: how far, in (0, 1], the within-class covariance is drawn to its mean variance.
    After `fit`: `coef_` (1, feature), `intercept_` (1,) with the log odds of the classes, `classes_`.
    """

    shrinkage: float

    @no_type_check  # scikit-learn asks that __init__ stores whatever it is given
    def __init__(self, shrinkage: float = 0.1) -> None:
        self.shrinkage = shrinkage

    def fit(self, X: Any, y: Any) -> "DiscriminantProbe":
        """Needs finite X (row, feature) and y with exactly two classes."""
        rows, positive = self._rows(X, y)
        found = fit_discriminant(rows[None], positive, shrinkage=(float(self.shrinkage),))
        self._learn(found.coef[0, 0, 0], float(found.intercept[0, 0, 0]))
        return self
