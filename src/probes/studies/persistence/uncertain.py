"""A number of one seed together with what its prompts leave open, so that formulas carry both."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from probes.evaluation.bootstrap import Estimate
from probes.evaluation.over_seeds import EVERYWHERE, over_seeds, rate_draws
from probes.foundation.seeds import stream

N_DRAWS = 400


@dataclasses.dataclass(frozen=True, eq=False)
class Uncertain:
    """value: as measured. draws: what it could have been with other prompts, seed unchanged."""

    value: float
    draws: np.ndarray

    @property
    def variance(self) -> float:
        return float(self.draws.var())


def rate_of(value: float, n: int, *name: object) -> Uncertain:
    """A rate of this value in `n` prompts.

    name: of this rate among all that meet in a formula. It alone decides on the random stream, so
    that equal rates do not cancel and the same tables give the same intervals, in any order.
    """
    return Uncertain(value, rate_draws(value, n, N_DRAWS, stream(0, "rate", *name)))


def combine(formula: Callable[..., Any], *parts: Uncertain) -> Uncertain:
    """A formula of numbers, applied to what was measured and to each draw."""
    return Uncertain(
        float(formula(*(part.value for part in parts))),
        np.asarray(formula(*(part.draws for part in parts)), dtype=np.float64),
    )


def mean_of(parts: Sequence[Uncertain]) -> Uncertain:
    """The plain mean, for instance over mechanisms."""
    return combine(lambda *values: sum(values) / len(values), *parts)


def weighted(parts: Sequence[Uncertain], weights: Sequence[float] | np.ndarray) -> Uncertain:
    """The sum of these numbers times these weights."""
    return combine(lambda *values: sum(w * v for w, v in zip(weights, values, strict=True)), *parts)


def interval_over(parts: Sequence[Uncertain], bounds: tuple[float, float] = EVERYWHERE) -> Estimate:
    """The mean over seeds with its interval; see `over_seeds`."""
    return over_seeds([p.value for p in parts], [p.variance for p in parts], bounds=bounds)
