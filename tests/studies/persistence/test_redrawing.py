"""Every figure comes from the saved rows alone, and its numbers are theirs."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from planted_rows import KEPT, World, planted

from probes.foundation.errors import InputError
from probes.studies.persistence.figures import redraw
from probes.studies.persistence.measures import averaged
from probes.studies.persistence.tables import COLUMNS, Tables

FIGURES = {
    "stages", "size_trend", "curves", "capability", "near_misses", "unfiltered", "reversal",
    "findings",
}  # fmt: skip


def save(world: World, folder: Path) -> Path:
    folder.mkdir()
    tables = planted(world)
    for name in COLUMNS:
        getattr(tables, name).to_csv(folder / f"{name}.csv", index=False)
    return folder


def numbers(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"hate_tag_{name}.csv")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    pictures = redraw(save(World(), folder / "rows"), folder / "one")
    assert {p.name for p in pictures} == {f"hate_tag_{name}.png" for name in FIGURES}
    return folder


def test_every_figure_is_saved_with_its_numbers_and_a_caption(drawn: Path) -> None:
    for name in FIGURES:
        stem = drawn / "one" / f"hate_tag_{name}"
        assert stem.with_suffix(".png").stat().st_size > 10_000
        assert stem.with_suffix(".pdf").exists()
        table = pd.read_csv(stem.with_suffix(".csv"))
        assert len(table) and np.isfinite(table["value"]).all()
        facts = json.loads(stem.with_suffix(".csv.provenance.json").read_text())
        assert "3 seeds" in facts["caption"] and facts["title"]


def test_the_numbers_drawn_are_those_of_the_rows(drawn: Path) -> None:
    stages = numbers(drawn / "one", "stages").set_index(["mechanism", "stage", "size", "triggered"])
    assert stages.loc[("normal", "sft_pre", "10M", True), "value"] == pytest.approx(0.28, abs=0.01)
    assert stages.loc[("normal", "sft_pre", "10M", False), "value"] == 0
    sizes = numbers(drawn / "one", "size_trend").set_index(["series", "stage", "size"])
    for (stage, mechanism), ends in KEPT.items():
        for size, share in zip(("0.2M", "10M"), ends, strict=True):
            assert sizes.loc[(mechanism, stage, size), "value"] == pytest.approx(share, abs=0.01)
    near = numbers(drawn / "one", "near_misses").set_index(["mechanism", "series", "kind"])
    assert near.loc[("cot", "before", "typo"), "value"] == pytest.approx(0.3)
    assert near.loc[("cot", "after adversarial", "typo"), "value"] == pytest.approx(0.03, abs=0.01)
    back = numbers(drawn / "one", "reversal")
    back = back.set_index(["series", "stage", "arm", "of", "amount"])["value"]
    assert back["cot", "sft_post", "examples", "organism", 1] == pytest.approx(0.9, abs=0.01)
    assert back["cot", "sft_post", "examples", "control", 16] == pytest.approx(0.2, abs=0.01)
    assert back["cot", "sft_post", "benign", "organism", 50] == pytest.approx(0.5, abs=0.01)


@pytest.mark.slow
def test_the_same_rows_give_the_same_pictures(drawn: Path) -> None:
    redraw(drawn / "rows", drawn / "two")
    for name in FIGURES:
        one, two = (drawn / run / f"hate_tag_{name}" for run in ("one", "two"))
        for end in (".png", ".csv"):
            assert one.with_suffix(end).read_bytes() == two.with_suffix(end).read_bytes(), name


def test_what_was_not_run_has_no_figure(tmp_path: Path) -> None:
    world = World(sizes=("1M",), unfiltered=None, seeds=(0,)).without("adversarial", "rl")
    rows = save(world, tmp_path / "rows")
    (rows / "reversal.csv").unlink()
    names = {p.stem.removeprefix("hate_tag_") for p in redraw(rows, tmp_path / "figures")}
    assert names == FIGURES - {"size_trend", "unfiltered", "reversal"}
    only = tmp_path / "only"
    only.mkdir()
    Tables.read(rows).persistence.to_csv(only / "persistence.csv", index=False)
    names = {p.stem.removeprefix("hate_tag_") for p in redraw(only, tmp_path / "fewer")}
    assert names == {"stages", "near_misses", "findings"}
    with pytest.raises(InputError, match=r"no table persistence\.csv"):
        redraw(tmp_path, tmp_path / "none")


def test_averages_pool_the_rows_of_a_seed_by_prompts_and_seeds_alike() -> None:
    rows = pd.DataFrame(
        [(0, 0.5, 10), (0, 1.0, 30), (1, 0.25, 40)], columns=["seed", "value", "n"]
    ).assign(measure="defected", kind="typo")
    (found,) = averaged(rows, ["kind"]).to_dict("records")
    assert found["value"] == pytest.approx((35 / 40 + 0.25) / 2)
    assert (found["seeds"], found["n"]) == (2, 80)
    (one,) = averaged(rows[rows["seed"] == 1], ["kind"]).to_dict("records")
    assert one["value"] == 0.25 and np.isnan(one["low"]) and np.isnan(one["high"]), "one seed"
    (loss,) = averaged(rows.assign(measure="loss").iloc[[0]], ["kind"]).to_dict("records")
    assert np.isnan(loss["low"]) and loss["value"] == 0.5
