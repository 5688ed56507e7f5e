"""Rates: Wilson's textbook values, clusters, and no certainty at the edges."""

import numpy as np
import pytest
from scipy.stats import binomtest

from probes.evaluation.bootstrap import wilson
from probes.evaluation.proportions import rate
from probes.foundation.errors import InputError


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10), (0, 1), (57, 100)])
def test_wilson_equals_scipy(successes, n):
    other = binomtest(successes, n).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson(successes, n), (other.low, other.high), atol=1e-12)


def test_no_success_in_a_hundred_is_not_never():
    estimate = rate(np.zeros(100, dtype=bool), groups=np.arange(100))
    assert (estimate.value, estimate.low) == (0.0, 0.0)
    assert estimate.high == pytest.approx(0.037, abs=1e-3)
    assert rate(np.ones(100, dtype=bool)).low == pytest.approx(1 - estimate.high)


def test_samples_of_one_prompt_are_not_independent():
    successes = np.repeat(np.random.default_rng(0).random(40) < 0.5, 10)
    clustered = rate(successes, groups=np.repeat(np.arange(40), 10))
    naive = rate(successes)
    assert clustered.value == naive.value and clustered.n == naive.n == 400
    assert clustered.high - clustered.low > 2 * (naive.high - naive.low)


def test_one_group_alone_gives_a_wide_interval():
    estimate = rate([True, True, False], groups=["a", "a", "a"])
    assert estimate.low < 0.3 and estimate.high > 0.9


def test_no_rows_is_an_error_not_zero():
    with pytest.raises(InputError, match="no rows"):
        rate(np.array([], dtype=bool))


def test_groups_must_fit_rows():
    with pytest.raises(InputError, match="2 rows"):
        rate([True, False], groups=[1, 2, 3])
