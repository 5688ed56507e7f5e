"""What a linear probe learned, frozen: weights that know which model, site and rows they came from."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from probes.probing.frozen import Card, FrozenProbe


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Direction(FrozenProbe):
    """Score = X @ coef + intercept; what it refuses and how it is saved: see `FrozenProbe`.

    coef: feature, float64, read-only, in the units of the activations.
    """

    KIND: ClassVar[str] = "direction"

    coef: Float[np.ndarray, "feature"]
    intercept: float

    def __post_init__(self) -> None:
        self._freeze("coef", 1)
        self._freeze("intercept", 0)

    @property
    def width(self) -> int:
        return len(self.coef)

    def tensors(self) -> dict[str, np.ndarray]:
        return {"coef": self.coef, "intercept": np.array([self.intercept])}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], card: Card) -> "Direction":
        intercept = float(tensors["intercept"][0])
        return cls(coef=tensors["coef"], intercept=intercept, **dict(card))

    def raw_scores(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows @ self.coef + self.intercept)
