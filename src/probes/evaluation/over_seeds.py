"""How far a mean over training runs could have come out otherwise, when there are three or four of them.

A bootstrap over three seeds has ten distinct resamples and covers far less than it says; Student's t
over the seeds is wide and honest. By luck three runs can agree to the digit, so the interval is never
narrower than what the prompts within the runs leave open.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.stats import norm
from scipy.stats import t as student

from probes.evaluation.bootstrap import Estimate
from probes.foundation.errors import InputError

MIN_RUNS = 2


def over_seeds(
    values: Sequence[float] | Float[np.ndarray, "seed"],
    within: Sequence[float] | Float[np.ndarray, "seed"] | None = None,
    *,
    level: float = 0.95,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Estimate:
    """The mean over runs of different seeds with Student's t interval; `n` is the number of seeds.

    values: one number per seed; their spread holds seeds and prompts alike. within: the variance
    that each of them has from its prompts alone, which is a floor for the interval (by the normal
    distribution, since it is known from many prompts).
    bounds: what the quantity cannot leave, (0, 1) for a rate; the interval is cut there.
    Raises `InputError` for fewer than two seeds, or values that are not finite.
    """
    mine = np.asarray(values, dtype=np.float64)
    floors = np.zeros_like(mine) if within is None else np.asarray(within, dtype=np.float64)
    if len(mine) < MIN_RUNS or floors.shape != mine.shape:
        raise InputError(
            f"an interval over seeds needs at least {MIN_RUNS} values and a variance for each; "
            f"saw {len(mine)} and {len(floors)}"
        )
    if not (np.isfinite(mine).all() and np.isfinite(floors).all() and (floors >= 0).all()):
        raise InputError(f"values and variances are finite and not negative; saw {mine}, {floors}")
    count, tail = len(mine), (1 + level) / 2
    half = max(
        float(student.ppf(tail, count - 1)) * float(mine.std(ddof=1)) / count**0.5,
        float(norm.ppf(tail)) * float(floors.mean()) ** 0.5 / count**0.5,
    )
    value = float(mine.mean())
    low, high = max(bounds[0], value - half), min(bounds[1], value + half)
    return Estimate(value, min(low, value), max(high, value), len(mine))


def pooled(
    estimates: Sequence[Estimate],
    *,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    level: float = 0.95,
) -> Estimate:
    """The mean over seeds of estimates that each have an interval over their prompts; `n`: seeds.

    Each interval gives the variance that its prompts leave, a floor under the spread that the seeds
    happen to show (`over_seeds`). One seed keeps its own interval.
    """
    if len(estimates) == 1:
        return dataclasses.replace(estimates[0], n=1)
    width = 2 * float(norm.ppf((1 + level) / 2))
    within = [((each.high - each.low) / width) ** 2 for each in estimates]
    return over_seeds([each.value for each in estimates], within, level=level, bounds=bounds)


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
