"""What a little non-linearity adds: if much, the concept is there and no direction holds it."""

from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from probes.probing.linear import BinaryProbe


class MLPProbe(BinaryProbe):
    """One hidden layer on standardised features, by scikit-learn's `MLPClassifier` with L-BFGS.

    n_hidden: units. alpha: penalty on the weights. max_iter: of L-BFGS; a fit that does not converge
    warns as scikit-learn's does. seed: of the first weights. Scores are log-odds. After `fit`:
    `model_` (the pipeline), `classes_`, `n_iter_`.
    """

    n_hidden: int
    alpha: float
    max_iter: int
    seed: int
    model_: Pipeline

    @no_type_check  # scikit-learn asks that __init__ stores whatever it is given
    def __init__(
        self, n_hidden: int = 16, alpha: float = 1.0, max_iter: int = 2000, seed: int = 0
    ) -> None:
        self.n_hidden = n_hidden
        self.alpha = alpha
        self.max_iter = max_iter
        self.seed = seed

    def fit(self, X: Any, y: Any) -> "MLPProbe":
        """Needs finite X (row, feature) and y with exactly two classes."""
        rows, labels = self._labelled(X, y)
        network = MLPClassifier(
            (self.n_hidden,),
            solver="lbfgs",
            alpha=self.alpha,
            max_iter=self.max_iter,
            random_state=self.seed,
        )
        self.model_ = make_pipeline(StandardScaler(), network).fit(rows, labels)
        self.n_iter_ = network.n_iter_
        return self

    def decision_function(self, X: Any) -> Float[np.ndarray, "row"]:
        """Log-odds of the positive class per row."""
        rows = self._scored(X)
        probability = self.model_.predict_log_proba(rows)
        return np.asarray(probability[:, 1] - probability[:, 0])
