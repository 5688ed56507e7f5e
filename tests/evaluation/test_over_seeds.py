"""The interval over a few seeds holds the truth as often as it says, where a bootstrap does not."""

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp

from probes.evaluation.over_seeds import over_seeds, rate_draws
from probes.foundation.errors import InputError


def test_it_is_students_interval_of_the_mean() -> None:
    values = [0.9, 0.7, 0.95]
    found = over_seeds(values)
    low, high = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(values), low, high))
    assert found.n == 3
    assert over_seeds(values, bounds=(0.0, 1.0)).high == 1.0


def test_seeds_that_agree_by_luck_keep_what_their_prompts_leave_open() -> None:
    found = over_seeds([0.5, 0.5, 0.5], [0.25 / 100] * 3)
    half = 1.959964 * (0.25 / 300) ** 0.5
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half))
    assert over_seeds([0.1, 0.9], [1e-6, 1e-6]) == over_seeds([0.1, 0.9])


def test_it_covers_the_truth_as_often_as_it_says_and_a_bootstrap_over_three_seeds_does_not() -> (
    None
):
    rng = np.random.default_rng(0)
    n, trials = 96, 2000
    truth = 0.6
    rates = rng.beta(truth * 20, (1 - truth) * 20, size=(trials, 3))  # seeds differ
    seen = rng.binomial(n, rates) / n
    ours = [over_seeds(row, row * (1 - row) / n, bounds=(0.0, 1.0)) for row in seen]
    covered = np.mean([each.low <= truth <= each.high for each in ours])
    assert 0.93 <= covered <= 0.98
    picks = rng.integers(0, 3, size=(trials, 400, 3))
    means = np.take_along_axis(seen[:, None, :], picks, axis=2).mean(axis=2)
    low, high = np.quantile(means, [0.025, 0.975], axis=1)
    assert np.mean((low <= truth) & (truth <= high)) < 0.85


def test_draws_of_a_rate_have_jeffreys_spread_and_none_collapses() -> None:
    rng = np.random.default_rng(0)
    middle = rate_draws(0.25, 80, 20000, rng)
    assert middle.mean() == pytest.approx(20.5 / 81, abs=0.002)
    assert middle.var() == pytest.approx(20.5 * 60.5 / 81**2 / 82, rel=0.05)
    for value in (0.0, 1.0):
        draws = rate_draws(value, 96, 1000, rng)
        assert 0 < draws.std() < 0.02 and (draws >= 0).all() and (draws <= 1).all()


@pytest.mark.parametrize(
    ("values", "within"),
    [([0.5], [0.1]), ([0.5, 0.6], [0.1]), ([0.5, np.nan], None), ([0.5, 0.6], [0.1, -0.1])],
)
def test_too_few_or_broken_values_are_refused(values: list[float], within: list[float]) -> None:
    with pytest.raises(InputError, match=r"at least 2|finite"):
        over_seeds(values, within)
    with pytest.raises(InputError, match="of 0"):
        rate_draws(0.5, 0, 10, np.random.default_rng(0))


def test_the_quantile_is_that_of_the_degrees_of_freedom() -> None:
    found = over_seeds([0.0, 1.0])
    assert found.high - found.value == pytest.approx(
        t.ppf(0.975, 1) * np.std([0, 1], ddof=1) / 2**0.5
    )
