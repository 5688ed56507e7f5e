"""Intervals: their coverage for few families, exact rates, and runs above families."""

import numpy as np
import pytest
from scipy.stats import binomtest

from probes.detection.resampling import bounds, clopper_pearson, family_weights, over_runs, p_above


@pytest.mark.parametrize("n", [8, 12, 16])
def test_few_families_are_covered_as_often_as_is_said(n: int) -> None:
    """Plain percentiles of the mean of 8 to 16 values cover it in 89 to 92% of draws; these in 94 to 95%."""
    weights, rng = family_weights(np.ones(n, dtype=bool), 1000, 0), np.random.default_rng(0)
    drawn = [weights @ rng.normal(size=n) / n for _ in range(1500)]
    found = np.array([bounds(statistic, n) for statistic in drawn])
    plain = np.array([np.quantile(statistic[1:], [0.025, 0.975]) for statistic in drawn])

    def covered(interval: np.ndarray) -> float:
        return float(((interval[:, 0] <= 0) & (interval[:, 1] >= 0)).mean())

    assert covered(plain) < 0.93
    assert 0.93 < covered(found) < 0.965


def test_p_is_the_tail_that_the_bound_leaves() -> None:
    statistic = np.r_[0.5, np.random.default_rng(0).normal(0.5, 1, 20000)]
    low, _ = bounds(statistic, 12)
    assert p_above(statistic, low, 12) == pytest.approx(0.025, abs=0.002)


@pytest.mark.parametrize(("k", "n"), [(0, 12), (5, 8), (8, 8)])
def test_exact_rates(k: int, n: int) -> None:
    reference = binomtest(k, n).proportion_ci(0.95)
    assert clopper_pearson(k, n) == pytest.approx((reference.low, reference.high))


def test_runs_are_resampled_above_families() -> None:
    """Runs that disagree widen the interval; their AUROCs are averaged on the logit scale, inside 0 to 1."""
    alike = over_runs([np.r_[0.8, np.full(999, 0.8)]] * 8, rates=True)
    apart = over_runs([np.r_[v, np.full(999, v)] for v in [0.5, 0.99] * 4], rates=True)
    assert np.ptp(alike) == pytest.approx(0)
    low, high = bounds(apart, 8)
    assert 0.5 < low < 0.85 < apart[0] < 0.95 < high < 1
