"""How far a number could have come out otherwise: families resampled, runs above them, ableness permuted."""

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit, logit
from scipy.stats import beta, norm
from scipy.stats import t as student

from probes.foundation.errors import InputError
from probes.foundation.seeds import stream

Draws = Float[np.ndarray, "draw"]
LEVEL = 0.95


def family_weights(
    able: Bool[np.ndarray, "family"], n: int, seed: int
) -> Float[np.ndarray, "draw family"]:
    """How often each family is drawn: able and unable ones each with replacement, as many as there are.

    The first row is all ones: a statistic of these weights holds its value first and its draws after.
    """
    return _weights(tuple(able.tolist()), n, seed)


@functools.lru_cache(maxsize=8)
def _weights(able: tuple[bool, ...], n: int, seed: int) -> Float[np.ndarray, "draw family"]:
    kinds, drawn = np.array(able), np.ones((n + 1, len(able)))
    for kind in (True, False):
        which = np.flatnonzero(kinds == kind)
        if len(which):
            even = np.full(len(which), 1 / len(which))
            drawn[1:, which] = stream(seed, "families", kind).multinomial(len(which), even, size=n)
    drawn.flags.writeable = False
    return drawn


def permuted_ableness(
    able: Bool[np.ndarray, "family"], n: int, seed: int
) -> Bool[np.ndarray, "draw family"]:
    """Labels "able" and "unable" dealt anew over the families, cues left as they are; first the true ones."""
    rng = stream(seed, "ableness")
    return np.stack([able, *[rng.permutation(able) for _ in range(n)]])


def bounds(statistic: Draws, n_families: int, level: float = LEVEL) -> tuple[float, float]:
    """The interval of a statistic whose draws follow its value: expanded percentiles.

    Percentiles of few families are too narrow; they are taken further out, by the ratio of Student's t
    to the normal distribution and of n to n - 1. Hesterberg (2015), section 5.3.
    """
    tail = _expanded((1 - level) / 2, n_families)
    low, high = np.quantile(statistic[1:], [tail, 1 - tail])
    return float(min(low, statistic[0])), float(max(high, statistic[0]))


@functools.cache
def _expanded(tail: float, n: int) -> float:
    return float(norm.cdf(student.ppf(tail, n - 1) * (n / (n - 1)) ** 0.5))


def p_above(statistic: Draws, threshold: float, n_families: int) -> float:
    """The one-sided p for "not above the threshold": where `bounds` would just reach it."""
    share = (1 + (statistic[1:] <= threshold).sum()) / len(statistic)
    return float(
        student.cdf(norm.ppf(share) * ((n_families - 1) / n_families) ** 0.5, n_families - 1)
    )


def clopper_pearson(k: float | int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """The exact interval of a rate, k of n; k may be a sum of shares. Clopper and Pearson (1934)."""
    if not 0 <= k <= n or n < 1:
        raise InputError(f"a rate needs 0 <= k <= n and n > 0; saw {k} of {n}")
    tail = (1 - level) / 2
    low = 0.0 if k == 0 else float(beta.ppf(tail, k, n - k + 1))
    return low, 1.0 if k == n else float(beta.ppf(1 - tail, k + 1, n - k))


def over_runs(statistics: Sequence[Draws], *, rates: bool, seed: int = 0) -> Draws:
    """The mean over runs of different seeds, and its draws: runs are resampled, families within them.

    A draw takes the same families in every run, as the runs share them. rates: whether the numbers lie
    in 0 to 1; their mean is then taken on the logit scale, so that no interval leaves the range.
    """
    table = np.stack(statistics)
    if rates:
        table = logit(np.clip(table, 0.005, 0.995))
    n_runs, n = table.shape
    drawn = np.full((n, n_runs), 1 / n_runs)
    drawn[1:] = stream(seed, "runs").multinomial(n_runs, drawn[0], size=n - 1) / n_runs
    mean = (drawn * table.T).sum(axis=1)
    return np.asarray(expit(mean) if rates else mean)
