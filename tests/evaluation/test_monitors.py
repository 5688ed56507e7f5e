"""Recall at a false-alarm rate and the worst set: sums done by hand."""

import numpy as np
import pytest

from probes.evaluation.auroc import auroc
from probes.evaluation.proportions import recall_at
from probes.evaluation.worst_set import by_set, worst_set
from probes.foundation.errors import InputError


def test_recall_by_hand():
    negatives, positives = np.arange(200.0), np.array([150.0, 197.0, 198.0, 250.0])
    y = np.append(np.zeros(200, dtype=bool), np.ones(4, dtype=bool))
    found = recall_at(y, np.append(negatives, positives))
    assert found.threshold == 197.0 and found.false_positive_rate == 0.01
    assert found.recall.value == 0.5 and found.recall.n == 4
    assert found.resolved and found.resolution == 1 / 200


def test_few_negatives_say_what_they_cannot_show():
    y = np.repeat([False, True], 20)
    found = recall_at(y, y.astype(float))
    assert found.false_positive_rate == 0.0 and found.recall.value == 1.0
    assert found.resolution == 0.05 and not found.resolved
    assert "20 negatives resolve 5.0%" in str(found)


@pytest.mark.parametrize("seed", range(4))
def test_the_false_alarm_rate_is_kept_whatever_the_ties(seed):
    rng = np.random.default_rng(seed)
    y, scores = rng.random(300) < 0.3, rng.integers(0, 8, 300).astype(float)
    for allowed in (0.01, 0.05, 0.5):
        found = recall_at(y, scores, false_positive_rate=allowed)
        assert found.false_positive_rate <= allowed
        lower = np.unique(scores)[np.unique(scores) < found.threshold]
        if len(lower):
            assert (scores[~y] > lower[-1]).mean() > allowed, "the threshold is the lowest"


def test_moving_positives_does_not_move_the_threshold():
    y = np.repeat([False, True], 200)
    scores = np.random.default_rng(0).normal(size=400)
    assert recall_at(y, scores).threshold == recall_at(y, scores + 5 * y).threshold


def three_sets(seed=0):
    """An easy set, a hard one, and one in between."""
    rng = np.random.default_rng(seed)
    names = np.repeat(["defected", "dialogue", "untriggered", "benign triggered"], 60)
    centre = {"defected": 3.0, "dialogue": -5.0, "untriggered": 0.0, "benign triggered": 2.5}
    scores = rng.normal(size=240) + np.array([centre[name] for name in names])
    return scores, names == "defected", names, np.arange(240)


def test_the_worst_set_is_the_headline_and_pooling_would_hide_it():
    scores, defected, names, groups = three_sets()
    found = worst_set(scores, defected, names, groups, n_boot=200)
    each = {
        name: auroc(defected[defected | (names == name)], scores[defected | (names == name)])
        for name in ("dialogue", "untriggered", "benign triggered")
    }
    table = found.rows.set_index("negative_set")
    assert table["auroc"].to_dict() == pytest.approx(each)
    assert found.negative_set == "benign triggered"
    assert found.auroc.value == pytest.approx(min(each.values()))
    assert auroc(defected, scores) > found.auroc.high
    assert table["worst"].sum() == 1 and set(table["n_negative"]) == {60}
    assert table.loc["dialogue", "recall"] == 1.0 > table.loc["benign triggered", "recall"]
    assert "benign triggered" in str(found) and "<table" in found._repr_html_()


def test_sets_of_one_class_are_refused():
    scores, _, names, groups = three_sets()
    with pytest.raises(InputError, match="0 defected rows of 240"):
        by_set(scores, np.zeros(240, dtype=bool), names, groups)


def test_a_minimum_of_perfect_sets_is_as_wide_as_its_smallest_set():
    defected = np.array([True] * 50 + [False] * 60)
    names = np.array(["defected"] * 50 + ["large"] * 50 + ["small"] * 10)
    found = worst_set(defected.astype(float), defected, names, np.arange(110))
    assert found.auroc.value == 1.0
    assert found.auroc.low == pytest.approx(10 / (10 + 1.959964**2), abs=1e-6)
