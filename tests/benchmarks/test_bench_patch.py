"""The patching benchmark compares like with like: equal cells, or no time at all."""

from pathlib import Path

import numpy as np
import pytest
import torch

from probes.benchmarks import patching
from probes.benchmarks.patching import GRIDS, OURS, PEER, TABLE, bench_patch, check_same
from probes.foundation.errors import InputError, StageError
from probes.foundation.tables import read_table
from shell import run_cli


def test_a_smoke_run_has_every_row_and_judges_nothing(tmp_path: Path) -> None:
    asked = ["bench", "patch", "--out", str(tmp_path), "--quick", "--model", "tiny"]
    out = run_cli(asked)
    assert out.code == 0, out.err
    table = read_table(tmp_path / TABLE)
    assert table["job"].drop_duplicates().tolist() == [f"tiny: {grid}" for grid in GRIDS]
    assert set(table["contender"]) >= {OURS, PEER}
    assert table["reached"].isna().all()
    assert (table["ratio"].dropna() > 0).all()
    assert sorted(file.name for file in tmp_path.iterdir()) == [TABLE, f"{TABLE}.provenance.json"]
    assert "smoke run" in out.out


def test_another_grid_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = patching.ours
    monkeypatch.setattr(patching, "ours", lambda work, grid: ours(work, grid) + 0.05)
    with pytest.raises(StageError, match="no time is reported"):
        bench_patch(tmp_path, models=["tiny"], quick=True)
    assert list(tmp_path.iterdir()) == []


def test_what_differs_in_one_cell_or_shows_nothing_is_refused() -> None:
    grid = np.array([[1.0, 2.0], [3.0, 4.0]])
    check_same(grid, grid + 1e-5, torch.float32)
    with pytest.raises(StageError, match="cell 1 of pair 0"):
        check_same(grid + np.array([[0, 0], [0.1, 0]]), grid, torch.float32)
    with pytest.raises(StageError, match="different shapes"):
        check_same(grid[:1], grid, torch.float32)
    with pytest.raises(StageError, match="shows nothing"):
        check_same(np.ones((3, 2)), np.ones((3, 2)), torch.float32)
    with pytest.raises(StageError, match="no time"):
        check_same(grid * np.nan, grid, torch.float32)


def test_an_unknown_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="organism, 30M, tiny"):
        bench_patch(tmp_path, models=["7B"])


def test_the_shipped_organism_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (patching.ORGANISM / "config.json").is_file()
    with pytest.raises(InputError, match="no organism at nowhere: give --organism"):
        bench_patch(tmp_path, organism="nowhere")
