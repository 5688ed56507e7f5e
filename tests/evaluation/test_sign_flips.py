"""Max-T: right by enumeration, keeps its error rate over a whole grid, finds what is there."""

import itertools

import numpy as np
import pytest

from probes.evaluation.sign_flips import max_t
from probes.foundation.errors import InputError


def by_hand(effects: np.ndarray) -> np.ndarray:
    """All flips, t statistics from the textbook formula."""

    def t(values: np.ndarray) -> np.ndarray:
        return np.abs(values.mean(-1)) / (values.std(-1, ddof=1) / np.sqrt(values.shape[-1]))

    flips = [np.array(s) for s in itertools.product((-1.0, 1.0), repeat=effects.shape[1])]
    best = np.array([t(effects * signs).max() for signs in flips])
    return (best[:, None] >= t(effects) * (1 - 1e-9)).mean(0)


def test_p_is_that_of_all_flips() -> None:
    effects = np.random.default_rng(0).normal(size=(4, 8)) + np.array([[1.2], [0.4], [0], [0]])
    np.testing.assert_allclose(max_t(effects, n_flips=20_000), by_hand(effects), atol=0.01)


def test_a_whole_grid_of_nothing_is_called_something_one_time_in_twenty() -> None:
    draw = np.random.default_rng(1)
    found = [max_t(draw.normal(size=(60, 12)), n_flips=400, seed=i).min() for i in range(200)]
    assert 0.01 <= np.mean(np.array(found) <= 0.05) <= 0.1


def test_dependent_cells_cost_less_than_bonferroni_and_an_effect_is_found() -> None:
    draw = np.random.default_rng(2)
    effects = draw.normal(size=(1, 20)) + 0.05 * draw.normal(size=(100, 20))
    effects[7] = draw.normal(size=20) + 2
    p = max_t(effects, n_flips=2000)
    assert p.argmin() == 7 and p[7] < 0.005
    alone = max_t(effects[:1], n_flips=2000)[0]
    assert p[0] < min(1.0, 100 * alone) and (p >= 1 / 2001).all()


def test_rounding_errors_that_agree_are_no_finding() -> None:
    draw = np.random.default_rng(3)
    effects = np.concatenate([np.full((1, 16), 1e-7), draw.normal(size=(5, 16)), np.zeros((1, 16))])
    assert max_t(effects)[0] < 0.05
    assert max_t(effects, floor=1e-4)[0] > 0.5
    assert max_t(effects, floor=1e-4)[-1] == 1


def test_one_unit_and_gaps_are_refused() -> None:
    with pytest.raises(InputError, match="at least 2"):
        max_t(np.ones((3, 1)))
    with pytest.raises(InputError, match="finite"):
        max_t(np.array([[1.0, np.nan]]))
