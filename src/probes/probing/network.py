"""What a probe with one hidden layer learned, frozen: no direction, but the same promises as one."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from probes.foundation.errors import InputError
from probes.probing.frozen import Card, FrozenProbe


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Network(FrozenProbe):
    """Score = relu(X @ hidden + hidden_intercept) @ output + intercept: log-odds.

    hidden: (feature, unit) in the units of the activations. hidden_intercept, output: unit. All
    float64 and read-only. What it refuses and how it is saved: see `FrozenProbe`.
    """

    KIND: ClassVar[str] = "network"

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
