"""The trained linear probe, with its weights given back in the space of the activations."""

from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression

from probes.probing.linear import LinearProbe, varying


class LogisticProbe(LinearProbe):
    """L2-penalised logistic regression on standardised features; scores are log-odds.

    C: inverse strength of the penalty on the standardised weights. max_iter, tol: of the lbfgs
    solver; a fit that does not converge warns as scikit-learn's does. After `fit`: `coef_`
    (1, feature) and `intercept_` (1,) apply to raw activations; features that do not vary get
    weight zero; `classes_`, `n_features_in_`, `n_iter_`.
    """

    C: float
    max_iter: int
    tol: float

    @no_type_check  # scikit-learn asks that __init__ stores whatever it is given
    def __init__(self, C: float = 1.0, max_iter: int = 1000, tol: float = 1e-4) -> None:
        self.C = C
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, X: Any, y: Any) -> "LogisticProbe":
        """Needs finite X (row, feature) and y with exactly two classes."""
        rows, labels = self._labelled(X, y)
        mean, kept = rows.mean(axis=0), varying(rows)
        scale = np.where(kept, rows.std(axis=0), 1.0)
        model = LogisticRegression(C=self.C, max_iter=self.max_iter, tol=self.tol)
        model.fit(np.where(kept, (rows - mean) / scale, 0.0), labels)
        self.coef_ = np.where(kept, model.coef_ / scale, 0.0)
        self.intercept_ = model.intercept_ - self.coef_ @ mean
        self.n_iter_ = model.n_iter_
        return self

    def predict_proba(self, X: Any) -> Float[np.ndarray, "row 2"]:
        """Probabilities of both classes per row."""
        odds = self.decision_function(X)
        positive = 0.5 * (1 + np.tanh(odds / 2))
        return np.column_stack([1 - positive, positive])
