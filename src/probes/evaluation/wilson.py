"""An interval for a rate that does not collapse at 0 of n or n of n."""

from scipy.stats import norm

from probes.foundation.errors import InputError


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
