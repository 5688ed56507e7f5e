"""A probe that finds for itself which tokens to read: attention over a sequence, one score out."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike

from probes.evaluation.auroc import as_labels
from probes.foundation.errors import InputError
from probes.foundation.seeds import stream
from probes.probing.estimators import two_classes


@dataclasses.dataclass(eq=False)
class AttentionProbe:
    """Score of a sequence: the mean of `x @ value_` over its tokens, weighted by softmax(`x @ query_`).

    penalty: on the squared length of query and value, on standardised features. max_iter: of L-BFGS
    over all sequences. seed: of the first query. X is a list of (token, feature) arrays of uneven
    length, which no scikit-learn estimator takes: this is none, and cannot stand in a pipeline or a
    search. Attention sinks would decide the scale of every feature: `Activations.sequences` gives
    arrays without them.
    After `fit`: `query_`, `value_` (feature,) in activation units, `intercept_`, `loss_`.
    """

    penalty: float = 0.01
    max_iter: int = 300
    seed: int = 0

    def fit(self, X: Sequence[np.ndarray], y: ArrayLike) -> "AttentionProbe":
        """X: one (token, feature) array per sequence; y: sequence, True = positive."""
        labels = as_labels(y)
        two_classes(labels)
        tokens, owner = _flat(X, None)
        if len(X) != len(labels):
            raise InputError(f"{len(X)} sequences and {len(labels)} labels: give one label each")
        mean, scale = tokens.mean(axis=0), tokens.std(axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        rows = torch.from_numpy((tokens - mean) / scale)
        whose, target = torch.from_numpy(owner), torch.from_numpy(labels).double()
        width = tokens.shape[1]
        first = 0.01 * stream(int(self.seed), "attention probe").normal(size=2 * width + 1)
        weights = torch.from_numpy(first).requires_grad_()
        optimiser = torch.optim.LBFGS(
            [weights], max_iter=int(self.max_iter), line_search_fn="strong_wolfe"
        )

        def loss() -> torch.Tensor:
            optimiser.zero_grad()
            pooled, _ = _pool(rows, whose, len(labels), weights[:width], weights[width:-1])
            value = torch.nn.functional.binary_cross_entropy_with_logits(
                pooled + weights[-1], target
            )
            value = value + self.penalty * weights[:-1].square().sum()
            value.backward()
            return value

        with torch.enable_grad():
            optimiser.step(loss)
            self.loss_ = float(loss().detach())
        found = weights.detach().numpy()
        self.query_, self.value_ = found[:width] / scale, found[width:-1] / scale
        self.intercept_ = float(found[-1] - mean @ self.value_)
        return self

    def decision_function(self, X: Sequence[np.ndarray]) -> Float[np.ndarray, "sequence"]:
        """Log-odds per sequence."""
        return self._scores(X)[0]

    def predict(self, X: Sequence[np.ndarray]) -> np.ndarray:
        """True where a sequence is more likely positive."""
        return np.asarray(self.decision_function(X) > 0)

    def attention(self, X: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The weight of each token in its sequence's score; sums to 1 in every sequence."""
        weights = self._scores(X)[1]
        ends = np.cumsum([len(one) for one in X])[:-1]
        return np.split(weights, ends)

    def _scores(self, X: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        if not hasattr(self, "value_"):
            raise InputError("this AttentionProbe has learned nothing yet: call fit first")
        tokens, owner = _flat(X, len(self.value_))
        pooled, weights = _pool(
            torch.from_numpy(tokens),
            torch.from_numpy(owner),
            len(X),
            torch.from_numpy(self.query_),
            torch.from_numpy(self.value_),
        )
        return pooled.numpy() + self.intercept_, weights.numpy()


def _flat(X: Sequence[np.ndarray], width: int | None) -> tuple[np.ndarray, np.ndarray]:
    """All tokens of all sequences, and the sequence of each."""
    if not len(X):
        raise InputError("there are no sequences: give one (token, feature) array each")
    for number, one in enumerate(X):
        if np.ndim(one) != 2 or len(one) == 0 or np.shape(one)[1] != (width or np.shape(X[0])[1]):
            raise InputError(
                f"sequence {number} has shape {np.shape(one)}: give (token, feature) with at least "
                f"one token and {width or np.shape(X[0])[-1]} features"
            )
        if not np.isfinite(one).all():
            raise InputError(f"sequence {number} holds NaN or infinite activations")
    tokens = np.concatenate([np.asarray(one, dtype=np.float64) for one in X])
    return tokens, np.repeat(np.arange(len(X)), [len(one) for one in X])


def _pool(
    rows: torch.Tensor, owner: torch.Tensor, n: int, query: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted mean of the values per sequence, and the weights."""
    keys = rows @ query
    highest = keys.new_full((n,), -torch.inf).scatter_reduce(0, owner, keys.detach(), "amax")
    shares = (keys - highest[owner]).exp()
    weights = shares / shares.new_zeros(n).index_add(0, owner, shares)[owner]
    return weights.new_zeros(n).index_add(0, owner, weights * (rows @ value)), weights
