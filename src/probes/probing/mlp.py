"""What a probe with one hidden layer learned, frozen: no direction, but the same promises as one."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, no_type_check

import numpy as np
from jaxtyping import Float
from sklearn.neural_network import MLPClassifier
from sklearn.utils.validation import check_is_fitted

from probes.foundation.errors import InputError
from probes.probing.frozen import Card, FrozenProbe
from probes.probing.linear import BinaryProbe, varying


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Network(FrozenProbe):
    """Score = relu(X @ hidden + hidden_intercept) @ output + intercept: log-odds.

    hidden: (feature, unit) in the units of the activations. hidden_intercept, output: unit. All
    float64 and read-only. What it refuses and how it is saved: see `FrozenProbe`.
    """

    KIND: ClassVar[str] = "network"
    AXES: ClassVar[Mapping[str, int]] = {
        "hidden": 2, "hidden_intercept": 1, "output": 1, "intercept": 1,
    }  # fmt: skip

    hidden: Float[np.ndarray, "feature unit"]
    hidden_intercept: Float[np.ndarray, "unit"]
    output: Float[np.ndarray, "unit"]
    intercept: float

    def __post_init__(self) -> None:
        self._freeze("hidden", 2)
        self._freeze("hidden_intercept", 1)
        self._freeze("output", 1)
        self._freeze("intercept", 0)
        units = {self.hidden.shape[1], len(self.hidden_intercept), len(self.output)}
        if len(units) > 1:
            raise InputError(
                f"the weights of a network have {sorted(units)} units: give one number"
            )

    @property
    def width(self) -> int:
        return len(self.hidden)

    def tensors(self) -> dict[str, np.ndarray]:
        return {
            "hidden": self.hidden,
            "hidden_intercept": self.hidden_intercept,
            "output": self.output,
            "intercept": np.array([self.intercept]),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], card: Card) -> "Network":
        return cls(
            hidden=tensors["hidden"],
            hidden_intercept=tensors["hidden_intercept"],
            output=tensors["output"],
            intercept=float(tensors["intercept"][0]),
            **dict(card),
        )

    def raw_scores(self, rows: np.ndarray) -> np.ndarray:
        return network_scores(rows, self.hidden, self.hidden_intercept, self.output, self.intercept)


def network_scores(
    rows: np.ndarray,
    hidden: np.ndarray,
    hidden_intercept: np.ndarray,
    output: np.ndarray,
    intercept: float,
) -> np.ndarray:
    """Log-odds of rows under one hidden layer of rectified units."""
    units = np.maximum(rows @ hidden + hidden_intercept, 0.0)
    return np.asarray(units @ output + intercept)


class MLPProbe(BinaryProbe):
    """One hidden layer on standardised features, by scikit-learn's `MLPClassifier` with L-BFGS.

    n_hidden: units. alpha: penalty on the weights. max_iter: of L-BFGS; a fit that does not converge
    warns as scikit-learn's does. seed: of the first weights. Scores are log-odds. After `fit`:
    `hidden_` (feature, unit) and `hidden_intercept_` (unit,), which apply to raw activations, `output_`
    (unit,), `intercept_`, `classes_`, `n_iter_`. Features that do not vary get weight zero.
    """

    n_hidden: int
    alpha: float
    max_iter: int
    seed: int

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
        mean, kept = rows.mean(axis=0), varying(rows)
        scale = np.where(kept, rows.std(axis=0), 1.0)
        network = MLPClassifier(
            (self.n_hidden,),
            solver="lbfgs",
            alpha=self.alpha,
            max_iter=self.max_iter,
            random_state=self.seed,
        )
        network.fit(np.where(kept, (rows - mean) / scale, 0.0), labels)
        (first, last), (bias, end) = network.coefs_, network.intercepts_
        self.hidden_ = np.where(kept[:, None], first / scale[:, None], 0.0)
        self.hidden_intercept_ = bias - mean @ self.hidden_
        self.output_, self.intercept_ = last[:, 0], float(end[0])
        self.n_iter_ = network.n_iter_
        return self

    def decision_function(self, X: Any) -> Float[np.ndarray, "row"]:
        """Log-odds of the positive class per row."""
        rows = self._scored(X)
        return network_scores(
            rows, self.hidden_, self.hidden_intercept_, self.output_, self.intercept_
        )

    def freeze(self, card: Card) -> Network:
        """What was learned, with where it came from."""
        check_is_fitted(self)
        return Network(
            hidden=self.hidden_,
            hidden_intercept=self.hidden_intercept_,
            output=self.output_,
            intercept=self.intercept_,
            **dict(card),
        )
