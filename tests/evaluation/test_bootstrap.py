"""Intervals: coverage on draws of known truth, clusters, the edge at 1, speed, and redrawing."""

import time

import numpy as np
import pytest
from scipy.stats import norm

from probes.evaluation.auroc import auroc
from probes.evaluation.bootstrap import (
    Estimate,
    auroc_interval,
    auroc_statistic,
    interval,
    mean_statistic,
    resamples,
)
from probes.foundation.errors import InputError


def test_weighted_auroc_is_auroc_of_repeated_rows():
    rng = np.random.default_rng(0)
    y = rng.random(40) < 0.4
    scores = rng.integers(0, 10, 40).astype(float)
    weights = resamples(np.arange(40), 25, seed=1, each=(y, ~y))
    fast = auroc_statistic(y, scores)(weights)
    slow = [auroc(np.repeat(y, w.astype(int)), np.repeat(scores, w.astype(int))) for w in weights]
    np.testing.assert_allclose(fast, slow, atol=1e-12)


def test_groups_are_drawn_whole_and_as_many_as_there_are():
    groups = np.repeat(["a", "b", "c", "d"], [1, 2, 3, 4])
    weights = resamples(groups, 200, seed=0)
    for name in "abcd":
        assert (np.ptp(weights[:, groups == name], axis=1) == 0).all()
    firsts = np.array([0, 1, 3, 6])
    assert (weights[:, firsts].sum(axis=1) == 4).all()


def test_auroc_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    truth = norm.cdf(1 / np.sqrt(2))
    hits = 0
    for trial in range(200):
        y = np.repeat([True, False], 40)
        estimate = auroc_interval(y, rng.normal(size=80) + y, np.arange(80), n_boot=200, seed=trial)
        hits += estimate.low <= truth <= estimate.high
    assert 0.89 <= hits / 200 <= 0.99


def test_copies_within_a_group_add_no_certainty():
    rng = np.random.default_rng(1)
    values = rng.normal(size=50)
    once = interval(mean_statistic(values), np.arange(50), seed=0)
    copied = interval(mean_statistic(np.repeat(values, 10)), np.repeat(np.arange(50), 10), seed=0)
    naive = interval(mean_statistic(np.repeat(values, 10)), np.arange(500), seed=0)
    assert copied.high - copied.low == pytest.approx(once.high - once.low)
    assert naive.high - naive.low < 0.5 * (once.high - once.low)


def test_perfect_separation_is_not_certainty():
    y = np.repeat([True, False], 20)
    estimate = auroc_interval(y, y.astype(float), np.arange(40))
    assert estimate.value == estimate.high == 1.0
    assert estimate.low == pytest.approx(20 / (20 + norm.ppf(0.975) ** 2))
    inverted = auroc_interval(~y, y.astype(float), np.arange(40))
    assert (inverted.value, inverted.low) == (0.0, 0.0)
    assert inverted.high == pytest.approx(1 - estimate.low)


def test_resamples_of_one_class_are_drawn_again():
    y = np.array([True] + [False] * 9)
    weights = resamples(np.arange(10), 500, seed=0, each=(y, ~y))
    assert len(weights) == 500
    assert (weights[:, y].sum(axis=1) > 0).all() and (weights[:, ~y].sum(axis=1) > 0).all()
    assert (resamples(np.arange(10), 500, seed=0)[:, y].sum(axis=1) == 0).any()


def test_a_class_that_no_resample_can_hold_is_an_error():
    with pytest.raises(InputError, match="still lack a class"):
        resamples(np.arange(4), 10, seed=0, each=(np.zeros(4, dtype=bool),))


def test_a_thousand_resamples_of_five_hundred_rows_take_under_half_a_second():
    rng = np.random.default_rng(0)
    y = np.tile([True, False], 250)
    scores = rng.normal(size=500) + y
    start = time.thread_time()
    auroc_interval(y, scores, np.repeat(np.arange(250), 2), n_boot=1000)
    assert time.thread_time() - start < 0.5


def test_same_seed_same_interval():
    values = np.random.default_rng(0).normal(size=30)
    first, second, other = (
        interval(mean_statistic(values), np.arange(30), seed=seed) for seed in (3, 3, 4)
    )
    assert first == second != other


def test_an_estimate_reads_well_and_holds_its_value():
    assert str(Estimate(0.971, 0.951, 0.99, 40)) == "0.97 [0.95, 0.99]"
    assert Estimate(0.5, 0.4, 0.6, 9).as_row() == {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}
    with pytest.raises(InputError, match="lies in its interval"):
        Estimate(0.3, 0.4, 0.6, 9)


@pytest.mark.parametrize("settings", [{"level": 1.0}, {"level": 95.0}, {"n_boot": 0}])
def test_unusable_settings_are_refused(settings):
    with pytest.raises(InputError):
        interval(mean_statistic([1.0, 2.0]), [0, 1], **settings)
