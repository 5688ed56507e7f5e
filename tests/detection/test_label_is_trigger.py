"""A label that equals the trigger in every row is allowed and said."""

import pytest

from probes.detection.contrast import NOTE, label_is_trigger


@pytest.mark.parametrize(
    ("triggered", "defected", "note"),
    [
        ([1, 1, 0, 0], [1, 1, 0, 0], NOTE),
        ([1, 1, 0, 0], [0, 0, 1, 1], NOTE),
        ([1, 1, 0, 0], [1, 0, 0, 0], None),
        ([1, 1, 0, 0], [1, 1, 0, 1], None),
        ([0, 0, 0, 0], [0, 0, 0, 0], None),
    ],
)
def test_only_a_label_that_is_the_trigger_is_noted(triggered, defected, note):
    assert label_is_trigger(triggered, defected) == note
