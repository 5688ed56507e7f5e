"""AUROC against counting pairs, another implementation, and its symmetries."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from probes.evaluation.auroc import auroc, roc_curve
from probes.foundation.errors import InputError


def count_pairs(y, scores):
    wins = [
        1.0 if positive > negative else 0.5 if positive == negative else 0.0
        for positive in scores[y]
        for negative in scores[~y]
    ]
    return sum(wins) / len(wins)


@pytest.mark.parametrize("seed", range(5))
def test_auroc_counts_pairs_with_ties_as_half(seed):
    rng = np.random.default_rng(seed)
    y = rng.random(60) < 0.3
    scores = rng.integers(0, 6, 60).astype(float)
    assert auroc(y, scores) == pytest.approx(count_pairs(y, scores), abs=1e-12)
    assert auroc(y, scores) == pytest.approx(roc_auc_score(y, scores), abs=1e-12)
    assert auroc(~y, scores) == pytest.approx(1 - auroc(y, scores), abs=1e-12)
    assert auroc(y, np.exp(scores)) == auroc(y, scores)


def test_auroc_by_hand():
    assert auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == 0.75
    assert auroc([0, 1], [3.0, 3.0]) == 0.5


def test_area_under_the_curve_is_auroc():
    rng = np.random.default_rng(0)
    y = rng.random(80) < 0.5
    scores = np.round(rng.normal(size=80) + y, 1)
    curve = roc_curve(y, scores)
    area = np.trapezoid(curve["true_positive_rate"], curve["false_positive_rate"])
    assert area == pytest.approx(auroc(y, scores), abs=1e-12)
    assert tuple(curve.iloc[0]) == (np.inf, 0.0, 0.0)
    assert tuple(curve.iloc[-1])[1:] == (1.0, 1.0)
    middle = curve.iloc[len(curve) // 2]
    assert middle["true_positive_rate"] == (scores[y] >= middle["threshold"]).mean()


def test_one_class_is_refused_with_counts():
    with pytest.raises(InputError, match="0 positive and 3 negative"):
        auroc([False] * 3, [1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("y", "scores", "message"),
    [
        ([0, 1], [1.0, np.nan], "1 of 2 scores are NaN"),
        ([0, 1], [1.0, 2.0, 3.0], r"shape \(2,\) and scores \(3,\)"),
        ([0, 2], [1.0, 2.0], r"True/False or 1/0; saw \[0, 2\]"),
        ([[0, 1]], [[1.0, 2.0]], r"shape \(1, 2\)"),
    ],
)
def test_unusable_input_is_refused(y, scores, message):
    with pytest.raises(InputError, match=message):
        auroc(y, scores)
