"""The tables of a grid are what its cells left on disk, and their lineage is checked."""

import json

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from probes.foundation.artifact import building, write_text
from probes.foundation.digest import digest_bytes
from probes.foundation.errors import IntegrityError, StageError
from probes.organisms.card import CARD
from probes.organisms.safety.stage import CURVE
from probes.runs.step import Cell
from probes.studies.persistence.config import PersistenceConfig
from probes.studies.persistence.steps import FACTS, ROWS
from probes.studies.persistence.study import TABLES, persistence
from probes.studies.persistence.tables import Tables, n_parameters

CONFIG = PersistenceConfig(
    sizes=("0.2M",), seeds=(0, 1), mechanisms=("normal",), stages=("rl", "adversarial")
)
WEIGHTS = {"embedding": np.zeros((3, 4), np.float32), "norm": np.zeros(4, np.float32)}


def a_rate(value, **labels):
    row = {"set": "test", "kind": "", "triggered": True, "measure": "defected", **labels}
    return {**row, "value": value, "low": 0.0, "high": 1.0, "n": 8}


def measured(value):
    return pd.DataFrame(
        [
            a_rate(value),
            a_rate(0.0, triggered=False),
            a_rate(0.5, set="near", kind="typo", triggered=False),
        ]
    )


def value_of(cell: Cell) -> float:
    """Another number for every checkpoint."""
    return int(digest_bytes(f"{cell.recipe.name} {cell.stage}".encode())[:4], 16) / 0xFFFF


def write(cell, out, changes=None):
    """What the cells of each kind leave, without a model."""
    with building(out / cell.name, kind="fake", key=cell.key) as to:
        match cell.kind:
            case "base" | "organism" | "stage":
                before = cell.parent or (cell.needs[0] if cell.needs else None)
                card = {
                    "weights_digest": digest_bytes(cell.name.encode()),
                    "parent_digest": before and digest_bytes(before.name.encode()),
                }
                if cell.stage == "rl":
                    share = (0.0, 0.25)[cell.recipe.seed]
                    card |= {
                        "reward_was_constant_at_first": not share,
                        "mean_share_with_signal": share,
                    }
                if cell.stage.endswith("adversarial"):
                    card["attacks"] = [{"attack": n, "n_found": 9 - n} for n in (1, 2)]
                card |= changes or {}
                save_file(WEIGHTS, to / "model.safetensors")
                write_text(to / CARD, json.dumps(card))
                if cell.kind == "stage":
                    points = [measured(v).assign(step=s) for s, v in ((0, 1.0), (9, 0.25))]
                    pd.concat(points).to_csv(to / CURVE, index=False)
            case "measure":
                measured(value_of(cell)).to_csv(to / ROWS, index=False)
                digest = digest_bytes(cell.parent.name.encode())
                write_text(to / FACTS, json.dumps({"checkpoint": digest}))
            case "reversal":
                rows = [
                    {**a_rate(0.5), "arm": "examples", "amount": 4, "of": of, "seed": 0}
                    for of in ("organism", "control")
                ]
                pd.DataFrame(rows).drop(columns=["set", "kind"]).to_csv(to / ROWS, index=False)


def test_every_checkpoint_has_its_rows_with_its_own_numbers(tmp_path):
    grid = persistence(CONFIG, tmp_path, work=write, draw=False)
    assert grid.is_whole
    tables = Tables.read(tmp_path / TABLES)
    rows = tables.persistence
    assert set(rows["stage"] + "<" + rows["parent"]) == {
        "installed<", "rl<installed", "adversarial<installed",
    }  # fmt: skip
    asked = rows[(rows["set"] == "test") & rows["triggered"]].set_index(["seed", "stage"])["value"]
    for cell in [c for c in grid.cells if c.kind == "measure"]:
        assert asked[cell.recipe.seed, cell.stage] == pytest.approx(value_of(cell))
    assert len(asked) == 6
    assert set(rows["n_parameters"]) == {16}
    assert (rows.loc[rows["stage"] == "rl", "parent_checkpoint"].unique()[0]) == digest_bytes(
        b"organisms/hate-tag-normal-0.2M-s0"
    )
    assert set(tables.curves["step"]) == {0, 9}
    assert set(tables.reversal["of"]) == {"organism", "control"}
    assert set(tables.reversal["seed"]) == {0, 1}
    attacks = pd.read_csv(tmp_path / TABLES / "attacks.csv")
    assert attacks[["seed", "attack", "n_found"]].to_numpy().tolist() == [
        [0, 1, 8], [0, 2, 7], [1, 1, 8], [1, 2, 7],
    ]  # fmt: skip
    overview = grid.overview()
    assert list(overview["stage"]) == ["installed", "rl", "adversarial"]
    assert set(overview["seeds"]) == {2}


def test_where_the_reward_was_constant_the_rows_say_so(tmp_path):
    """Of an adversarial training by reinforcement the rounds know; what no reward trained says nothing."""

    def work(cell, out):
        signals = ((True, 0.0), (False, 0.5))
        rounds = [
            {"reward_was_constant_at_first": constant, "mean_share_with_signal": share}
            for constant, share in signals
        ]
        told = cell.stage == "adversarial" and cell.kind == "stage" and cell.recipe.seed == 1
        write(cell, out, {"rounds": rounds} if told else None)

    persistence(CONFIG, tmp_path, work=work, draw=False)
    rows = Tables.read(tmp_path / TABLES).persistence
    columns = ["stage", "seed", "constant_at_first", "share_with_signal"]
    told = rows[columns].drop_duplicates().dropna()
    assert told.to_numpy().tolist() == [
        ["rl", 0, True, 0.0], ["rl", 1, False, 0.25], ["adversarial", 1, False, 0.25],
    ]  # fmt: skip
    assert len(rows[columns].drop_duplicates()) == 6


def test_the_same_grid_again_gives_the_same_bytes(tmp_path):
    persistence(CONFIG, tmp_path, work=write, draw=False)
    before = {f.name: f.read_bytes() for f in (tmp_path / TABLES).glob("*.csv")}
    persistence(CONFIG, tmp_path, work=write, draw=False)
    assert {f.name: f.read_bytes() for f in (tmp_path / TABLES).glob("*.csv")} == before
    assert set(before) == {
        "persistence.csv", "curves.csv", "reversal.csv", "attacks.csv", "cells.csv",
        "findings.csv",
    }  # fmt: skip


def test_a_cell_without_a_result_has_no_rows_and_a_reason(tmp_path):
    def work(cell, out):
        if cell.name == "stages/hate-tag-normal-0.2M-s1/rl":
            raise StageError("the loss is not finite")
        write(cell, out)

    grid = persistence(CONFIG, tmp_path, work=work, draw=False)
    assert not grid.is_whole
    rows = Tables.read(tmp_path / TABLES).persistence
    assert set(rows.loc[rows["stage"] == "rl", "seed"]) == {0}
    cells = pd.read_csv(tmp_path / TABLES / "cells.csv").set_index("cell")
    assert cells.loc["stages/hate-tag-normal-0.2M-s1/rl", "status"] == "failed"
    assert cells.loc["stages/hate-tag-normal-0.2M-s1/rl", "reason"] == "the loss is not finite"
    assert cells.loc["measured/hate-tag-normal-0.2M-s1/rl", "status"] == "skipped"
    assert "1 failed" in str(grid)
    assert "the loss is not finite" in str(grid)


def test_a_grid_without_a_single_result_still_says_why(tmp_path):
    def work(cell, out):
        raise StageError("the loss is not finite")

    grid = persistence(CONFIG, tmp_path, work=work)
    assert Tables.read(tmp_path / TABLES).persistence.empty
    assert set(grid.findings["verdict"]) == {"not run"}
    assert set(grid.tables.cells["status"]) == {"failed", "skipped"}


@pytest.mark.parametrize("broken", ["weights_digest", "parent_digest"])
def test_a_lineage_that_is_not_the_grids_is_refused(tmp_path, broken):
    def work(cell, out):
        write(cell, out, {broken: "0" * 64} if cell.kind == "stage" else None)

    with pytest.raises(IntegrityError, match="other weights"):
        persistence(CONFIG, tmp_path, work=work, draw=False)


def test_parameters_are_counted_from_the_files(tmp_path):
    save_file(WEIGHTS, tmp_path / "model-1.safetensors")
    save_file({"other": np.zeros(5, np.float32)}, tmp_path / "model-2.safetensors")
    assert n_parameters(tmp_path) == 21
