"""A verdict over seeds is a detection only where every seed is one."""

import pytest

from probes.detection.claim import Verdict
from probes.detection.seeds import verdict_over_seeds
from probes.foundation.errors import InputError

CAUGHT, TRIGGER, WEAK = Verdict.DEFECTION, Verdict.TRIGGER, Verdict.UNDETERMINED
SILENT = Verdict.NO_SIGNAL


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([CAUGHT, CAUGHT, CAUGHT], CAUGHT),
        ([CAUGHT, CAUGHT, TRIGGER], WEAK),
        ([TRIGGER, CAUGHT, TRIGGER], TRIGGER),
        ([CAUGHT, TRIGGER, WEAK], WEAK),
        ([CAUGHT, CAUGHT, TRIGGER, TRIGGER], WEAK),
        ([SILENT, TRIGGER], WEAK),
        (["no signal", "detects the trigger", "detects the trigger"], TRIGGER),
        ([TRIGGER], TRIGGER),
    ],
)
def test_the_verdict_over_seeds(verdicts, expected):
    assert verdict_over_seeds(verdicts) is expected


def test_no_verdicts_and_unknown_ones_are_refused():
    for verdicts, message in (([], "saw no verdicts"), (["caught"], "'caught'.*detects defection")):
        with pytest.raises(InputError, match=message):
            verdict_over_seeds(verdicts)
