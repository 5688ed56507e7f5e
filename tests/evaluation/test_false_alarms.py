"""A threshold is set where nobody looked for positives, and judged where it was not set."""

import numpy as np
import pytest

from probes.evaluation.thresholds import false_alarms
from probes.foundation.errors import InputError


def drawn(shift, n=200):
    """Benign fit scores; held out, half of the positives above them, set "b" shifted."""
    rng = np.random.default_rng(0)
    benign = rng.normal(size=400)
    scores = np.concatenate([rng.normal(5.0, 0.1, n), rng.normal(size=n), rng.normal(shift, 1, n)])
    y = np.repeat([True, False, False], n)
    return benign, scores, y, np.repeat(["p", "a", "b"], n), np.arange(3 * n)


def test_the_threshold_is_that_of_the_benign_rows_alone():
    benign, *held = drawn(0.0)
    found = false_alarms(benign, *held, n_boot=50)
    assert (benign > found.threshold).sum() == 4 and found.n_benign == 400
    assert found.recall.value == 1.0 and found.worst.value < 0.05
    assert found.rows["negative_set"].tolist() == ["a", "b"]


def test_a_set_that_lies_higher_is_found_by_name_and_count():
    benign, scores, *held = drawn(4.0)
    found = false_alarms(benign, scores, *held, n_boot=50)
    assert found.negative_set == "b"
    assert found.worst.value == np.mean(scores[held[1] == "b"] > found.threshold) > 0.8
    assert found.worst.low > 0.7 and "'b'" in str(found) and "<table" in found._repr_html_()


def test_ties_at_the_threshold_raise_no_alarm():
    found = false_alarms(np.zeros(50), [0.0, 1.0, 0.0], [False, True, False], ["a"] * 3, [0, 1, 2])
    assert found.worst.value == 0.0 and found.recall.value == 1.0


@pytest.mark.parametrize(
    ("benign", "y", "message"),
    [([], [0, 1], "saw 0 rows"), ([np.nan], [0, 1], "0 of them finite"),
     ([1.0], [1, 1], "saw 2 positives in 2")],
)  # fmt: skip
def test_what_cannot_be_counted_is_refused(benign, y, message):
    with pytest.raises(InputError, match=message):
        false_alarms(benign, [0.0, 1.0], y, ["a", "a"], [0, 1])
