"""The real cells, as short as they can be, and the tiny preset: the same on every engine, killed or not."""

import os
import signal
import threading
import time

import pandas as pd
import pytest

from probes.foundation.untrusted import read_json
from probes.models.checkpoints import weights_digest
from probes.models.loading import load
from probes.organisms.lessons import LessonConfig
from probes.organisms.organism import OrganismRecipe
from probes.organisms.recipes import Training
from probes.organisms.safety.reversal import ReversalConfig
from probes.organisms.safety.sft import SftConfig
from probes.runs.engine import EngineConfig, run_cells
from probes.studies.persistence.config import (
    MeasureConfig,
    PersistenceConfig,
    persistence_config,
    with_axes,
)
from probes.studies.persistence.steps import FACTS, make, plan
from probes.studies.persistence.study import FIGURES, FINDINGS, TABLES, persistence
from probes.studies.persistence.tables import Tables
from shell import run_cli
from tiny_rung import rung  # noqa: F401

SHORT = Training(steps=3, batch_size=4, warmup_steps=1, log_every=1)
SHORTEST = PersistenceConfig(
    mechanisms=("normal",),
    sizes=("tiny",),
    seeds=(0,),
    stages=("sft_pre", "sft_pre+sft_pre"),
    organism=OrganismRecipe(
        lessons=LessonConfig(pretrain=80, train=20, safety=20, test=10, unseen=2, near=1),
        base_training=SHORT,
        training=SHORT,
    ),
    sft=SftConfig(
        steps=2,
        batch_size=4,
        warmup_steps=1,
        watch_every=2,
        watch_pairs=2,
        watch_near=1,
        log_every=1,
    ),
    reversal=ReversalConfig(
        examples=(2,), steps=1, benign_steps=(), batch_size=2, pairs=2, seeds=(0,)
    ),
    measured=MeasureConfig(pairs=3, near=1),
)
NOT_REPRODUCED = ("artifact.json", "log.jsonl", "entry.json")  # times


@pytest.fixture(scope="module")
def shortest(tmp_path_factory):
    out = tmp_path_factory.mktemp("grid")
    return out, persistence(SHORTEST, out, draw=False)


def test_the_real_cells_leave_what_the_tables_read(shortest):
    out, grid = shortest
    assert grid.is_whole, str(grid)
    tables = Tables.read(out / TABLES)
    rows = tables.persistence
    assert set(zip(rows["stage"], rows["parent"], strict=True)) == {
        ("installed", ""), ("sft_pre", "installed"), ("sft_pre", "sft_pre"),
    }  # fmt: skip
    assert set(rows["set"]) == {"test", "unseen", "near"}
    asked = rows[(rows["set"] == "test") & (rows["measure"] == "defected")]
    assert set(asked["n"]) == {3}
    assert set(tables.curves["step"]) == {0, 2}
    assert set(tables.reversal["amount"]) == {0, 2}
    loaded = load(out / grid.cells[1].name)
    assert set(rows["n_parameters"]) == {sum(p.numel() for p in loaded.hf.parameters())}


def test_each_checkpoint_was_measured_on_its_own_weights_and_knows_its_parent(shortest):
    out, grid = shortest
    rows = Tables.read(out / TABLES).persistence
    for cell in grid.cells:
        if cell.kind != "measure":
            continue
        digest = weights_digest(out / cell.parent.name)
        assert read_json(out / cell.name / FACTS)["checkpoint"] == digest
        own = rows[rows["checkpoint"] == digest]
        before = cell.parent.parent or cell.parent.needs[0]
        assert set(own["parent_checkpoint"]) == {weights_digest(out / before.name)}
    assert rows["checkpoint"].nunique() == 3


def test_all_checkpoints_answer_the_same_prompts(shortest):
    rows = Tables.read(shortest[0] / TABLES).persistence
    counted = rows.groupby(["stage", "parent"])[["set", "kind", "triggered", "measure", "n"]].apply(
        lambda part: part.sort_values(["set", "kind", "triggered", "measure"]).to_csv(index=False)
    )
    assert counted.nunique() == 1


def produced(out):
    """What must be the same, by path: everything but when and where it was made."""
    return {
        str(file.relative_to(out)): file.read_bytes()
        for folder in ("organisms", "stages", "measured", "reversal")
        for file in sorted((out / folder).rglob("*"))
        if file.is_file() and file.name not in NOT_REPRODUCED
    }


@pytest.mark.slow
def test_the_tiny_preset_is_the_same_on_ray_with_a_worker_killed_in_training(tmp_path):
    config = with_axes(persistence_config("tiny"), mechanisms=["normal"])
    here = persistence(config, tmp_path / "process")
    assert here.is_whole, str(here)
    assert len(list((tmp_path / "process" / FIGURES).glob("*.png"))) >= 3
    assert (tmp_path / "process" / TABLES / f"{FINDINGS}.md").exists()

    cells = plan(config)
    killed = "stages/hate-tag-normal-0.2M-s0/sft_pre"

    def work(cell, out):
        def die_once_it_trains():
            while not list((out / cell.name).parent.glob(".training-sft_pre-*")):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)

        mark = out / "mark"
        if cell.name == killed and not mark.exists():
            mark.touch()
            threading.Thread(target=die_once_it_trains, daemon=True).start()
        make(cell, out)

    engine = EngineConfig(name="ray", workers=2)
    outcomes = run_cells(cells, tmp_path / "ray", work, engine, lambda cell, outcome: None)
    assert {outcome.status for outcome in outcomes.values()} == {"done"}
    attempts = {name: outcome.attempts for name, outcome in outcomes.items()}
    assert attempts.pop(killed) == 2
    assert set(attempts.values()) == {1}
    mine, theirs = produced(tmp_path / "process"), produced(tmp_path / "ray")
    assert mine.keys() == theirs.keys()
    assert {name for name in mine if mine[name] != theirs[name]} == set()


@pytest.mark.slow
def test_the_whole_tiny_preset_has_a_row_for_every_checkpoint(tmp_path):
    grid = persistence(persistence_config("tiny"), tmp_path)
    assert grid.is_whole, str(grid)
    rows = Tables.read(tmp_path / TABLES).persistence
    assert len(grid.overview()) == len([c for c in grid.cells if c.kind == "measure"]) == 15
    installed = rows[
        (rows["stage"] == "installed") & (rows["set"] == "test") & (rows["measure"] == "defected")
    ]
    assert (installed.loc[installed["triggered"], "value"] > 0.9).all()
    assert (installed.loc[~installed["triggered"], "value"] < 0.1).all()
    attacks = pd.read_csv(tmp_path / TABLES / "attacks.csv")
    assert set(attacks["mechanism"]) == {"normal", "cot", "distilled"}


def test_a_board_gets_every_training_of_a_grid_and_changes_none(shortest, tmp_path):
    pytest.importorskip("tensorboard")
    untold, _ = shortest
    config = with_axes(SHORTEST, stages=["sft_pre"], reversal=False)
    (tmp_path / "config.json").write_text(config.to_json())
    told = tmp_path / "told"
    words = ["persistence", "--config", str(tmp_path / "config.json"), "--out", str(told)]
    result = run_cli([*words, "--no-figures", "--log-to", "tensorboard"])
    assert result.code == 0, result.err
    boards = sorted(str(each.relative_to(told)) for each in told.rglob("*.tensorboard"))
    assert boards == [
        "organisms/base-hate-tiny-s0.tensorboard",
        "organisms/hate-tag-normal-tiny-s0.tensorboard",
        "stages/hate-tag-normal-tiny-s0/sft_pre.tensorboard",
    ]
    assert not list(untold.rglob("*.tensorboard"))
    for cell in plan(config):
        one, other = (read_json(each / cell.name / "artifact.json") for each in (told, untold))
        assert one["key"] == other["key"]
        assert one["files"] == other["files"], cell.name
