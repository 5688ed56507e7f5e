"""Means over training runs, and how far they could have come out otherwise: the one place that says so.

- **Unit**: the seed. A bootstrap over three seeds has ten distinct resamples and covers far less than
  it says; Student's t over the seeds is wide and honest. By luck three runs can agree to the digit, so
  the interval is never narrower than what the prompts within the runs leave open.
- **One seed** has a value, n = 1 and no interval (NaN): it cannot say how far seeds differ. What its
  prompts leave open is another quantity and never stands in the columns of the one over seeds.
- **Bounded quantities** (a rate, an AUROC, a loss) have their interval on the scale on which the bounds
  are infinitely far: the logit, or the logarithm. It never leaves the bounds, and is not cut at them.
- **Yes or no per seed** ("installed") is k of n with Clopper and Pearson's interval: `k_of_n`.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.special import expit, logit
from scipy.stats import binomtest, norm
from scipy.stats import t as student

from probes.evaluation.bootstrap import Estimate
from probes.foundation.errors import InputError
from probes.foundation.tables import INTERVAL, SEED, SEEDS

EVERYWHERE, RATE, DIFFERENCE, LOSS = (
    (-math.inf, math.inf), (0.0, 1.0), (-1.0, 1.0), (0.0, math.inf),
)  # fmt: skip
"""Bounds of what is averaged: no bounds, a rate or an AUROC, the difference of two, a loss."""
OVER_SEEDS = (
    "95% intervals: Student's t over seeds (of rates and AUROC on the logit scale), never narrower than "
    "the prompts allow"
)
"""The same in a caption."""


def over_seeds(
    values: Sequence[float] | Float[np.ndarray, "seed"],
    within: Sequence[float] | Float[np.ndarray, "seed"] | None = None,
    *,
    level: float = 0.95,
    bounds: tuple[float, float] = EVERYWHERE,
) -> Estimate:
    """The arithmetic mean over seeds with its interval; `n` is the number of seeds.

    values: one number per seed; their spread holds seeds and prompts alike. within: the variance
    that each of them has from its prompts alone, which is a floor for the interval (by the normal
    distribution, since it is known from many prompts).
    bounds: what the quantity cannot leave. The interval's half width, Student's t or the floor, is
    carried over to the logit (with one bound: the logarithm) by the delta method, as Korn and Graubard
    (1998) do for rates; a mean on the bound itself is moved inside by the floor's standard error.
    Raises `InputError` for no values, values that are not finite, or values out of bounds.
    """
    mine = np.asarray(values, dtype=np.float64)
    floors = np.zeros_like(mine) if within is None else np.asarray(within, dtype=np.float64)
    if not len(mine) or floors.shape != mine.shape:
        raise InputError(
            f"a mean over seeds needs at least 1 value and a variance for each; saw {len(mine)} and "
            f"{len(floors)}"
        )
    if not (np.isfinite(mine).all() and np.isfinite(floors).all() and (floors >= 0).all()):
        raise InputError(f"values and variances are finite and not negative; saw {mine}, {floors}")
    if mine.min() < bounds[0] or mine.max() > bounds[1]:
        raise InputError(f"values lie in {bounds[0]:g} to {bounds[1]:g}; saw {mine}")
    count, tail, value = len(mine), (1 + level) / 2, float(mine.mean())
    if count == 1:
        return Estimate(value, math.nan, math.nan, 1)
    floor = float(floors.mean() / count) ** 0.5
    spread = float(mine.std(ddof=1)) / count**0.5
    half = max(float(student.ppf(tail, count - 1)) * spread, float(norm.ppf(tail)) * floor)
    low, high = _around(value, half, floor, bounds)
    return Estimate(value, min(low, value), max(high, value), count)


def _around(
    value: float, half: float, floor: float, bounds: tuple[float, float]
) -> tuple[float, float]:
    """The ends of an interval of this half width, on the scale that its bounds ask for."""
    lower, upper = bounds
    if half == 0 or not math.isfinite(lower):
        return value - half, value + half
    if not math.isfinite(upper):
        centre = max(value - lower, floor)
        width = math.exp(half / centre)
        return lower + centre / width, lower + centre * width
    size = upper - lower
    inside = min(floor / size, 0.5)
    centre = min(max((value - lower) / size, inside), 1 - inside)
    width = half / size / (centre * (1 - centre))
    low, high = (float(expit(logit(centre) + sign * width)) for sign in (-1, 1))
    return lower + size * low, lower + size * high


def pooled(
    estimates: Sequence[Estimate],
    *,
    bounds: tuple[float, float] = EVERYWHERE,
    level: float = 0.95,
) -> Estimate:
    """The mean over seeds of estimates that each have an interval over their prompts; `n`: seeds.

    Each interval gives the variance that its prompts leave, a floor under the spread that the seeds
    happen to show (`over_seeds`).
    """
    width = 2 * float(norm.ppf((1 + level) / 2))
    within = [((each.high - each.low) / width) ** 2 for each in estimates]
    return over_seeds([each.value for each in estimates], within, level=level, bounds=bounds)


def of_rows(rows: pd.DataFrame, bounds: tuple[float, float] = RATE) -> Estimate:
    """`pooled` of a table that has one row per seed, with `value`, `low`, `high`."""
    ends = rows[[*INTERVAL]].to_numpy(float).tolist()
    return pooled([Estimate(value, low, high, 1) for value, low, high in ends], bounds=bounds)


def table_over_seeds(
    rows: pd.DataFrame, by: Sequence[str], bounds: tuple[float, float] = RATE
) -> pd.DataFrame:
    """One row per combination of `by`: `value`, `low`, `high` over seeds, and how many `seeds`."""
    table = []
    for names, part in rows.groupby(list(by), sort=False, observed=True):
        found = of_rows(part, bounds)
        numbers = (found.value, found.low, found.high, part[SEED].nunique())
        table.append((*names, *numbers))
    return pd.DataFrame(table, columns=[*by, *INTERVAL, SEEDS])


def k_of_n(flags: Sequence[bool], *, level: float = 0.95) -> Estimate:
    """The share of seeds of which something holds, with Clopper and Pearson's exact interval."""
    if not len(flags):
        raise InputError("a share of no seeds does not exist: give at least one")
    k, n = sum(map(bool, flags)), len(flags)
    ends = binomtest(k, n).proportion_ci(level, method="exact")
    return Estimate(k / n, float(ends.low), float(ends.high), n)


def rate_draws(
    value: float, n: int, n_draws: int, rng: np.random.Generator
) -> Float[np.ndarray, "draw"]:
    """What a rate of `value` in `n` independent prompts leaves open: draws of Jeffreys' posterior.

    Unlike a bootstrap it does not collapse at 0 of n and n of n. Brown, Cai and DasGupta (2001).
    """
    if n < 1 or not 0 <= value <= 1:
        raise InputError(f"a rate lies in 0 to 1 and has prompts; saw {value} of {n}")
    hits = round(value * n)
    return rng.beta(hits + 0.5, n - hits + 0.5, size=n_draws)
