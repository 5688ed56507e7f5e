"""An interval for a rate that does not collapse at 0 of n or n of n."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from scipy.stats import norm

from probes.evaluation.auroc import complete, labelled, require_both_classes
from probes.foundation.errors import InputError
from probes.foundation.html import html_text
from probes.foundation.seeds import stream


def wilson(n_successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (low, high) for a rate, both in 0 to 1.

    0 of 100 gives 0 to 0.037, where a bootstrap would say 0 to 0. Wilson (1927).
    """
    if not 0 <= n_successes <= n or n == 0:
        raise InputError(f"a rate needs 0 <= successes <= n and n > 0; saw {n_successes} of {n}")
    z = float(norm.ppf((1 + level) / 2))
    rate = n_successes / n
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (rate * (1 - rate) / n + z**2 / (4 * n**2)) ** 0.5
    low = 0.0 if n_successes == 0 else max(0.0, centre - half)
    high = 1.0 if n_successes == n else min(1.0, centre + half)
    return low, high


Weights = Float[np.ndarray, "resample row"]
Statistic = Callable[[Weights], Float[np.ndarray, "resample"]]

MAX_REDRAWS = 100


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A measured number and what it could have been: value, interval [low, high], n rows.

    low and high are NaN where there is no interval: a mean over one seed says nothing on seeds.
    """

    value: float
    low: float
    high: float
    n: int

    def __post_init__(self) -> None:
        bare = math.isnan(self.low) and math.isnan(self.high)
        if not bare and not self.low <= self.value <= self.high:
            raise InputError(f"an estimate lies in its interval; saw {self!r}")

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.value:.2f} (n = {self.n}, no interval)"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def _repr_html_(self) -> str:
        return html_text(f"{self} (n = {self.n})")

    def as_row(self) -> dict[str, Any]:
        """`value`, `low`, `high`, `n` for a tidy table."""
        return dataclasses.asdict(self)


def interval(
    statistic: Statistic,
    groups: ArrayLike,
    *,
    n_boot: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    each: Sequence[Bool[np.ndarray, "row"]] = (),
) -> Estimate:
    """The statistic on all rows and its percentile interval over resampled groups.

    statistic: takes multiplicities, shape (resample, row), returns one number per resample.
    groups: row; rows of equal value are drawn together. level: between 0 and 1.
    each: row masks. A resample that holds no row of one of them (a class is missing, so that the
    statistic does not exist) is drawn again until it holds one: the interval is conditional on
    both classes being present. Where that fails `MAX_REDRAWS` times in a row, `InputError`.
    The interval is widened to hold the value where a biased statistic (a minimum) falls outside.
    Where all resamples agree it has zero width: `auroc_interval` and `rate` mend that for theirs.
    Efron and Tibshirani (1993), chapter 13; clusters as in Davison and Hinkley (1997), 3.8.
    """
    if not 0 < level < 1:
        raise InputError(f"level is {level}; give a number between 0 and 1, for instance 0.95")
    if n_boot < 1:
        raise InputError(f"n_boot is {n_boot}; give at least 1, for instance 1000")
    codes = _codes(groups)
    value = float(statistic(np.ones((1, len(codes))))[0])
    draws = statistic(resamples(codes, n_boot, seed, each))
    if not (np.isfinite(value) and np.isfinite(draws).all()):
        raise InputError(
            "the statistic is not finite on some resample: name what it needs in `each`"
        )
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(min(low, value)), float(max(high, value)), len(codes))


def resamples(
    groups: ArrayLike, n_boot: int, seed: int, each: Sequence[Bool[np.ndarray, "row"]] = ()
) -> Weights:
    """Multiplicities of rows when as many groups as there are get drawn with replacement."""
    codes = _codes(groups)
    n_groups = int(codes.max()) + 1
    rng = stream(seed, "bootstrap")
    even = np.full(n_groups, 1 / n_groups)
    counts = rng.multinomial(n_groups, even, size=n_boot).astype(np.float64)
    holders = [np.unique(codes[np.asarray(mask)]) for mask in each]
    for _ in range(MAX_REDRAWS):
        lacking = np.zeros(n_boot, dtype=np.bool_)
        for holder in holders:
            lacking |= counts[:, holder].sum(axis=1) == 0
        if not lacking.any():
            return counts[:, codes]
        counts[lacking] = rng.multinomial(n_groups, even, size=int(lacking.sum()))
    raise InputError(
        f"{int(lacking.sum())} of {n_boot} resamples of {n_groups} groups still lack a class "
        f"after {MAX_REDRAWS} draws (groups that hold each: {[len(h) for h in holders]}): "
        "give more groups"
    )


def mean_statistic(values: ArrayLike) -> Statistic:
    """The mean of finite values, as a statistic for `interval`."""
    row = np.asarray(values, dtype=np.float64)
    if row.ndim != 1 or not np.isfinite(row).all():
        raise InputError(f"a mean needs a vector of finite values; saw shape {row.shape}")
    return lambda weights: (weights @ row) / weights.sum(axis=1)


def auroc_statistic(y: ArrayLike, scores: ArrayLike) -> Statistic:
    """AUROC under row multiplicities, ties counting half, as a statistic for `interval`.

    With weights of one it equals `auroc`; rows of weight zero do not exist. Sorting happens once.
    """
    labels, values = labelled(y, scores)
    require_both_classes(labels)
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(values[order]) > 0))
    positive = labels[order].astype(np.float64)

    def statistic(weights: Weights) -> Float[np.ndarray, "resample"]:
        ordered = weights[:, order]
        positives = np.add.reduceat(ordered * positive, starts, axis=1)
        negatives = np.add.reduceat(ordered * (1 - positive), starts, axis=1)
        below = np.cumsum(negatives, axis=1) - negatives / 2
        wins = (positives * below).sum(axis=1)
        return np.asarray(wins / (positives.sum(axis=1) * negatives.sum(axis=1)))

    return statistic


def auroc_interval(
    y: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike,
    *,
    n_boot: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """AUROC with an interval over groups that stays honest at 0 and 1.

    Arguments as in `auroc` and `interval`. Where the classes separate without an error every
    resample says 1 (or 0) and the bootstrap would claim certainty; the bound is then `separated`'s.
    """
    labels, values = labelled(y, scores)
    codes = _codes(groups)
    if codes.shape != labels.shape:
        raise InputError(f"{len(labels)} labels and {len(codes)} groups: give one group per row")
    estimate = interval(
        auroc_statistic(labels, values),
        codes,
        n_boot=n_boot,
        seed=seed,
        level=level,
        each=(labels, ~labels),
    )
    return separated(estimate, labels, codes, level) if estimate.value in (0.0, 1.0) else estimate


def separated(
    estimate: Estimate, y: Bool[np.ndarray, "row"], groups: ArrayLike, level: float = 0.95
) -> Estimate:
    """The interval of an AUROC of exactly 0 or 1, where resampling sees no variation.

    Match positives to negatives one to one across groups: m = min(groups with a positive, groups
    with a negative) independent trials, each won with probability AUROC, all of them won (or lost).
    The far bound is Wilson's for m of m. It uses fewer comparisons than there are, so it is wide.
    """
    codes = _codes(groups)
    trials = min(len(np.unique(codes[y])), len(np.unique(codes[~y])))
    low, high = wilson(round(estimate.value) * trials, trials, level)
    return Estimate(estimate.value, low, high, estimate.n)


def _codes(groups: ArrayLike) -> np.ndarray:
    values = complete(groups, "groups")
    if values.ndim != 1 or len(values) == 0:
        raise InputError(f"groups have shape {values.shape}: give one group per row, shape (n,)")
    return np.unique(values, return_inverse=True)[1]
