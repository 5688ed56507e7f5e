"""Both probes keep scikit-learn's promises and find what was planted."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from probes.foundation.errors import InputError
from probes.probing.logistic import LogisticProbe
from probes.probing.mean_difference import MeanDifferenceProbe

PROBES = [MeanDifferenceProbe(), LogisticProbe()]


@parametrize_with_checks(PROBES)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_scikit_learn_promises(estimator, check):
    check(estimator)


def planted(seed=0, n=300, width=24):
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=width)
    direction /= np.linalg.norm(direction)
    y = np.arange(n) % 2 == 1
    return rng.normal(size=(n, width)) + 4 * np.outer(y, direction) + 3.0, y, direction


@pytest.mark.parametrize("probe", PROBES, ids=lambda p: type(p).__name__)
def test_a_planted_direction_is_found(probe):
    X, y, direction = planted()
    coef = probe.fit(X, y).coef_[0]
    assert coef @ direction / np.linalg.norm(coef) > 0.9
    assert probe.score(X, y) > 0.95


def test_mean_difference_by_hand():
    X = np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 5.0], [6.0, 5.0]])
    probe = MeanDifferenceProbe().fit(X, [False, False, True, True])
    np.testing.assert_array_equal(probe.coef_, [[4.0, 4.0]])
    assert probe.decision_function([[3.0, 3.0]]) == 0.0
    assert probe.decision_function([[5.0, 5.0]]) == 16.0


def test_logistic_in_raw_space_is_the_standardised_regression():
    X, y, _ = planted()
    X *= np.geomspace(0.01, 100, X.shape[1])
    other = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(X, y)
    probe = LogisticProbe().fit(X, y)
    np.testing.assert_allclose(
        probe.decision_function(X), other.decision_function(X), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("probe", PROBES, ids=lambda p: type(p).__name__)
def test_rounding_noise_in_a_constant_feature_is_not_a_signal(probe):
    X, y, _ = planted()
    X[:, 3] = 1000.0 + 1e-5 * y
    noisy = probe.fit(X, y).decision_function(X)
    assert probe.coef_[0, 3] == 0.0
    X[:, 3] = 1000.0
    np.testing.assert_allclose(noisy, probe.fit(X, y).decision_function(X), atol=1e-9)


@pytest.mark.parametrize("probe", PROBES, ids=lambda p: type(p).__name__)
def test_one_class_is_refused(probe):
    with pytest.raises(InputError, match="two classes"):
        probe.fit(np.zeros((4, 2)), [True] * 4)
