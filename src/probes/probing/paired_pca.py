"""The direction in which the rows of a pair differ most, whatever their labels: linear tomography."""

from typing import Any

import numpy as np

from probes.foundation.errors import InputError
from probes.probing.linear import LinearProbe, midpoint, pairs_of


class PairedPCAProbe(LinearProbe):
    """First principal component of paired differences (LAT); labels only turn its sign.

    Differences are not centred: their common part is what is looked for. A pair's sign counts for
    nothing, so labels of single pairs may be wrong, or the same for both rows. After `fit`: `coef_` (1, feature), a unit vector
    that puts the mean of the positives higher, `intercept_` (1,) midway between the means,
    `explained_`: its share of the differences' squared length. Zou et al. (2023), section 3.1.
    """

    def fit(self, X: Any, y: Any, pairs: Any = None) -> "PairedPCAProbe":
        """Needs finite X (row, feature) and y with two classes. pairs: row, see `pairs_of`."""
        rows, positive = self._rows(X, y)
        members = pairs_of(positive, pairs)
        differences = rows[members[:, 1]] - rows[members[:, 0]]
        total = float((differences**2).sum())
        if total == 0:
            raise InputError("the rows of every pair are alike: there is no difference to look at")
        _, lengths, axes = np.linalg.svd(differences, full_matrices=False)
        direction = axes[0]
        if direction @ (rows[positive].mean(axis=0) - rows[~positive].mean(axis=0)) < 0:
            direction = -direction
        self.explained_ = float(lengths[0] ** 2 / total)
        self._learn(direction, midpoint(direction, rows, positive))
        return self
