"""The interval over a few seeds holds the truth as often as it says, where a bootstrap does not."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import beta, t, ttest_1samp

from probes.evaluation.bootstrap import Estimate
from probes.evaluation.over_seeds import (
    DIFFERENCE,
    LOSS,
    RATE,
    k_of_n,
    over_seeds,
    pooled,
    rate_draws,
    table_over_seeds,
)
from probes.foundation.errors import InputError


def test_without_bounds_it_is_students_interval_of_the_mean() -> None:
    values = [0.9, 0.7, 0.95]
    found = over_seeds(values)
    low, high = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(values), low, high))
    assert found.n == 3


def test_a_bounded_quantity_has_its_interval_inside_its_bounds_and_not_cut() -> None:
    """By hand: mean 0.85, t(2) = 4.3027, se = 0.0764; half 0.3286 over 0.85 x 0.15 on the logit."""
    values = [0.9, 0.7, 0.95]
    found = over_seeds(values, bounds=RATE)
    half = t.ppf(0.975, 2) * np.std(values, ddof=1) / 3**0.5
    assert found.value == pytest.approx(0.85)
    ends = expit(logit(0.85) + np.array([-1, 1]) * half / (0.85 * 0.15))
    assert (found.low, found.high) == pytest.approx(tuple(ends)) and found.high < 1
    moved = over_seeds([2 * value - 1 for value in values], bounds=DIFFERENCE)
    assert (moved.low, moved.high) == pytest.approx(tuple(2 * ends - 1))
    loss = over_seeds([1.0, 2.0, 6.0], bounds=LOSS)
    assert 0 < loss.low < 3 < loss.high and loss.low * loss.high == pytest.approx(9)


def test_seeds_that_all_reach_a_bound_keep_what_their_prompts_leave_open() -> None:
    found = over_seeds([1.0] * 3, [0.01**2] * 3, bounds=RATE)
    assert found.high == 1.0 and 0.9 < found.low < 0.99
    assert over_seeds([0.0] * 3, [0.01**2] * 3, bounds=RATE).high == pytest.approx(1 - found.low)


def test_one_seed_has_no_interval_over_seeds_whatever_its_prompts_say() -> None:
    for found in (over_seeds([0.7], [0.01]), pooled([Estimate(0.7, 0.6, 0.8, 40)], bounds=RATE)):
        assert found.value == 0.7 and found.n == 1
        assert np.isnan(found.low) and np.isnan(found.high)
        assert str(found) == "0.70 (n = 1, no interval)"


def test_yes_or_no_per_seed_is_k_of_n_with_clopper_and_pearson() -> None:
    """Textbook: 0 of n has the upper bound 1 - 0.025 ** (1 / n); 2 of 3 from the beta distribution."""
    assert k_of_n([False] * 3).high == pytest.approx(1 - 0.025 ** (1 / 3))
    two = k_of_n([True, True, False])
    assert (two.low, two.high) == pytest.approx((beta.ppf(0.025, 2, 2), beta.ppf(0.975, 3, 1)))


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
    ours = [over_seeds(row, row * (1 - row) / n, bounds=RATE) for row in seen]
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
    [([], []), ([0.5, 0.6], [0.1]), ([0.5, np.nan], None), ([0.5, 0.6], [0.1, -0.1])],
)
def test_too_few_or_broken_values_are_refused(values: list[float], within: list[float]) -> None:
    with pytest.raises(InputError, match=r"at least 1|finite"):
        over_seeds(values, within)
    with pytest.raises(InputError, match="values lie in 0 to 1"):
        over_seeds([0.5, 1.5], bounds=RATE)
    with pytest.raises(InputError, match="of 0"):
        rate_draws(0.5, 0, 10, np.random.default_rng(0))


def test_the_quantile_is_that_of_the_degrees_of_freedom() -> None:
    found = over_seeds([0.0, 1.0])
    assert found.high - found.value == pytest.approx(
        t.ppf(0.975, 1) * np.std([0, 1], ddof=1) / 2**0.5
    )


def test_rows_of_a_table_are_pooled_by_group_and_never_narrower_than_their_prompts_allow() -> None:
    rows = pd.DataFrame(
        {
            "site": ["a", "a", "b", "c", "c", "c"],
            "seed": [0, 1, 0, 0, 1, 2],
            "value": [0.2, 0.4, 0.9, 0.8, 0.8, 0.8],
            "low": [0.1, 0.1, 0.1, 0.7, 0.7, 0.7],
            "high": [1.0, 1.0, 1.0, 0.9, 0.9, 0.9],
        }
    )
    table = table_over_seeds(rows, ["site"]).set_index("site")
    assert table["value"].tolist() == pytest.approx([0.3, 0.9, 0.8])
    assert table["seeds"].tolist() == [2, 1, 3]
    assert np.isnan(table.loc["b", "low"]) and np.isnan(table.loc["b", "high"])
    assert table.loc["c", "high"] - table.loc["c", "low"] == pytest.approx(0.2 / 3**0.5, rel=0.01)
