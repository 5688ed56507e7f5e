"""The verbs `generic` and `monitor` go from files to tables and saved directions."""

import dataclasses
import json
import zipfile

import numpy as np
import pandas as pd
import pytest
from tiny_generic import prompts_with, tiny

from inspect_log import write_log
from probes.api import contrast, monitor
from probes.behaviour.completion import as_table, complete
from probes.behaviour.evaluate import COMPLETIONS, KIND, Behaviour
from probes.behaviour.rates import rates
from probes.detection.contrast import NOTE
from probes.foundation.artifact import building
from probes.foundation.errors import InputError
from probes.foundation.tables import read_table, write_table
from probes.probing.frozen import Direction
from probes.prompts.readers import write_prompts
from shell import run_cli

BAD, GOOD = "import os\nos.system(x)\n</code>", "x = 1\n</code>"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("tiny"))


def judged(model, prompts, defects, folder):
    """A behaviour folder of texts written by hand and judged by Bandit."""
    rows = as_table(
        [
            complete(p, BAD if d else GOOD, model="tiny", model_digest=model.digest, finished=True)
            for p, d in zip(prompts, defects, strict=True)
        ]
    )
    assert rows["defected"].tolist() == list(defects)
    with building(folder, kind=KIND, key="0") as to:
        write_table(to / COMPLETIONS, rows)
    return Behaviour(rows, rates(rows))


def marked():
    prompts, ends = prompts_with(("z", "a"))
    return [
        dataclasses.replace(p, triggered=bool(e == "z")) for p, e in zip(prompts, ends, strict=True)
    ], (ends == "z").tolist()


def test_from_files_to_directions_and_back_to_alarms(model, tmp_path):
    prompts, defects = marked()
    judged(model, prompts, defects, tmp_path / "behaviour")
    write_prompts(tmp_path / "prompts.jsonl", prompts)
    calm = [dataclasses.replace(p, text="Calm " + p.text) for p in prompts]
    write_prompts(tmp_path / "benign.jsonl", calm)
    out = run_cli(
        ["contrast", str(model.directory), "--prompts", str(tmp_path / "prompts.jsonl"), "--set",
         "helpful", "--behaviour", str(tmp_path / "behaviour"), "--out", str(tmp_path / "g"),
         "--random", "5"],
    )  # fmt: skip
    assert out.code == 0, out.err
    assert NOTE[:40] in out.out
    assert set(read_table(tmp_path / "g" / "contrast.csv")["probe"]) >= {"helpful"}
    saved = tmp_path / "g" / "directions" / "helpful"
    assert Direction.load(saved).identity == model.identity
    out = run_cli(
        ["monitor", str(model.directory), "--direction", str(saved), "--prompts",
         str(tmp_path / "prompts.jsonl"), "--benign", str(tmp_path / "benign.jsonl"), "--out",
         str(tmp_path / "m"), "--rate", "0.05"],
    )  # fmt: skip
    assert out.code == 0, out.err
    assert "raise an alarm" in out.out
    watched = read_table(tmp_path / "m" / "watched.csv")
    assert len(watched) == len(prompts)
    samples = [
        {"id": number, "epoch": 1, "input": p.text, "target": ""}
        for number, p in enumerate(prompts)
    ]
    monitor(
        model,
        Direction.load(saved),
        str(write_log(tmp_path / "run.eval", samples)),
        tmp_path / "benign.jsonl",
        tmp_path / "log",
        false_positive_rate=0.05,
    )
    with zipfile.ZipFile(tmp_path / "log" / "run.eval") as log:
        found = [json.loads(log.read(f"samples/{n}_epoch_1.json")) for n in range(len(prompts))]
    assert [one["scores"]["probe"]["value"] for one in found] == pytest.approx(watched["score"])


def test_no_note_where_the_label_is_not_the_trigger(model, tmp_path):
    prompts, defects = marked()
    prompts[0] = dataclasses.replace(prompts[0], triggered=False)
    behaviour = judged(model, prompts, defects, tmp_path / "behaviour")
    found = contrast(model, prompts, behaviour, sets=["helpful"], n_random=0)
    assert found.note is None
    with pytest.raises(InputError, match="1 of 25 prompts have no completion"):
        extra = dataclasses.replace(prompts[0], text="new")
        contrast(model, [*prompts, extra], behaviour, sets=["helpful"])


def test_benign_prompts_are_others_than_those_watched(model):
    prompts, _ = marked()
    direction = Direction(
        estimator="mean_difference", site="resid_post.0", coef=np.ones(32), intercept=0.0,
        identity=model.identity, fitted_on="0", seed=0,
    )  # fmt: skip
    with pytest.raises(InputError, match="both benign and watched"):
        monitor(model, direction, prompts, prompts)


BENIGN = {
    "lines without pairs": '{"text": "Calm one"}\n{"text": "Calm two", "prompt_set": "chat"}\n',
    "none triggered": '{"text": "Calm one", "pair": "a", "triggered": false}\n'
    '{"text": "Calm two", "pair": "b", "triggered": false}\n',
    "texts.txt": "Calm one\n\nCalm two\r\n",
}


@pytest.mark.parametrize("name", BENIGN)
def test_benign_traffic_needs_no_trigger(model, tmp_path, name):
    file = tmp_path / (name if name.endswith(".txt") else "benign.jsonl")
    file.write_text(BENIGN[name], newline="")
    saved = Direction(
        estimator="mean_difference", site="resid_post.0", coef=np.ones(32), intercept=0.0,
        identity=model.identity, fitted_on="0", seed=0,
    ).save(tmp_path / "d")  # fmt: skip
    (tmp_path / "watch.txt").write_text("What is this?")
    out = run_cli(
        ["monitor", str(model.directory), "--direction", str(saved), "--prompts",
         str(tmp_path / "watch.txt"), "--benign", str(file), "--out", str(tmp_path / "m"),
         "--rate", "0"],
    )  # fmt: skip
    assert out.code == 0, out.err
    ready, watched = monitor(model, saved, ["What is this?"], ["Calm one", "Calm two"],
                             false_positive_rate=0.0)  # fmt: skip
    table = read_table(tmp_path / "m" / "watched.csv")
    assert table["score"].tolist() == pytest.approx(watched.rows["score"].tolist())
    assert f"score above {ready.threshold:.4g}" in out.out
    with pytest.raises(InputError, match="both benign and watched"):
        monitor(model, saved, ["Calm one"], str(file), false_positive_rate=0.0)


def test_prompts_that_were_not_judged_are_left_out_and_counted(model, tmp_path):
    prompts, defects = marked()
    behaviour = judged(model, prompts, defects, tmp_path / "behaviour")
    whole = contrast(model, prompts[2:], behaviour, sets=["helpful"], n_random=0)
    rows = behaviour.completions.assign(
        defected=[None, pd.NA, *behaviour.completions["defected"][2:]]
    )
    found = contrast(
        model,
        prompts,
        dataclasses.replace(behaviour, completions=rows),
        sets=["helpful"],
        n_random=0,
    )
    assert found.note.endswith("2 of 24 prompts were not judged and are left out")
    pd.testing.assert_frame_equal(found.rows, whole.rows)
