"""Is an effect anywhere in a grid more than chance, when the whole grid was searched?

Under the null hypothesis the effect on a prompt is as likely to have one sign as the other. All cells
of a prompt are flipped together, so the largest statistic of a flipped grid says how large the best
of that many dependent cells gets by chance (Westfall and Young's max-T; Nichols and Holmes 2002).
"""

import numpy as np
from jaxtyping import Float

from probes.foundation.errors import InputError
from probes.foundation.seeds import stream

BLOCK = 1 << 24  # numbers held at once


def max_t(
    effects: Float[np.ndarray, "cell unit"],
    *,
    n_flips: int = 2000,
    floor: float = 0.0,
    seed: int = 0,
) -> Float[np.ndarray, "cell"]:
    """Two-sided p of each cell's mean being zero, corrected for the search over all cells.

    effects: one column per independent unit (prompt pair). floor: standard deviations below this
    count as this, in the unit of the effects, so that rounding errors that agree are no finding.
    The smallest p that can come out is 1 / (n_flips + 1), or with few units 2 / 2 ** n_units.
    Raises `InputError` for fewer than two units or numbers that are not finite.
    """
    n_cells, n_units = effects.shape
    if n_units < 2 or not n_cells:
        raise InputError(f"a sign-flip test needs cells and at least 2 units, not {effects.shape}")
    if not np.isfinite(effects).all():
        raise InputError("effects are not all finite; a sign-flip test has no place for gaps")
    draw = stream(seed, "sign flips")
    total = effects.sum(-1)
    squares = np.square(effects).sum(-1)
    least = n_units * (n_units - 1) * floor**2

    def statistic(sums: Float[np.ndarray, "*flip cell"]) -> Float[np.ndarray, "*flip cell"]:
        spread = np.maximum(n_units * squares - np.square(sums), least)
        return np.abs(sums) / np.sqrt(np.maximum(spread, np.finfo(float).tiny))

    seen = statistic(total)
    reached = np.zeros(n_cells)
    step = max(1, BLOCK // max(n_cells, n_units))
    for start in range(0, n_flips, step):
        signs = draw.integers(0, 2, (min(step, n_flips - start), n_units)) * 2.0 - 1.0
        best = statistic(signs @ effects.T).max(-1)
        # Equal up to rounding counts as reached: the flip that changes nothing must.
        reached += (best[:, None] >= seen * (1 - 1e-9)).sum(0)
    return (1 + reached) / (1 + n_flips)
