"""Tables of patched cells: resumed, with a placebo and corrected p, on Ray the same numbers."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from probes.foundation.errors import InputError
from probes.models.loading import Model, load
from probes.patching.exact import patch_cells
from probes.patching.jobs import Job
from probes.patching.pairs import encode_pairs
from probes.patching.parts import grid_cells
from probes.patching.sources import Plan
from probes.patching.spans import make_columns


@pytest.fixture(scope="module")
def task(llama: Model, pairs):
    encoded = encode_pairs(pairs, llama.tokenizer)
    columns = make_columns(pairs, encoded, llama.tokenizer)
    cells = [c for c in grid_cells(llama.hf, ["resid_pre", "mlp_out"], columns) if c.column > 7]
    return encoded, cells, columns


def test_a_stopped_grid_goes_on_and_gives_the_same_table(
    llama: Model, task, tmp_path: Path, monkeypatch
) -> None:
    encoded, cells, columns = task
    given = {"n_boot": 50, "n_flips": 100, "placebo": True, "path": tmp_path}
    whole = patch_cells(llama, encoded, cells, columns, **given)
    sites = {cell.site for cell in cells}
    assert {p.name for p in tmp_path.iterdir()} == {
        "unpatched", *sites, *(f"placebo-{site}" for site in sites)
    }  # fmt: skip
    shutil.rmtree(tmp_path / "mlp_out.1")
    scored = []
    scores = Job.scores
    monkeypatch.setattr(
        Job, "scores", lambda self, plan, cells: scored.append(cells[0].site) or scores(self, plan, cells)
    )  # fmt: skip
    again = patch_cells(llama, encoded, cells, columns, **given)
    assert scored == ["mlp_out.1"]
    pd.testing.assert_frame_equal(whole.rows, again.rows, check_exact=True)
    with pytest.raises(InputError, match="made from other settings or inputs"):
        patch_cells(llama, encoded, cells, columns, plan=Plan("noise"), **given)


def test_columns_of_the_table_follow_from_the_prompts(llama: Model, task) -> None:
    encoded, cells, columns = task
    found = patch_cells(llama, encoded, cells, columns, placebo=True, n_boot=100, n_flips=100)
    rows, each = found.rows, found.per_prompt
    assert len(rows) == len(cells) and len(each) == len(cells) * len(encoded)
    assert np.allclose(each["effect"], each["patched"] - each["unpatched"])
    grouped = each.groupby("cell")
    assert np.allclose(grouped["effect"].mean(), rows["mean"])
    damage = (each["placebo"] - each["unpatched"]).groupby(each["cell"]).mean()
    assert np.allclose(damage, rows["placebo_mean"])
    assert np.allclose(rows["beyond"], rows["mean"] - rows["placebo_mean"])
    assert (rows["low"] <= rows["mean"] + 1e-9).all() and (rows["p"] >= 1 / 101).all()
    year = rows[(rows["site"] == "resid_pre.0") & (rows["label"] == "3→4")].iloc[0]
    assert year["normalised"] == pytest.approx(1, abs=1e-4)
    assert abs(year["placebo_mean"]) < 1e-4  # all pairs without the trigger say the same year
    assert "denoise with paired" in repr(found) and "resid_pre" in found._repr_html_()
    assert found.matrix().shape == (4, len({c.column for c in cells}))
    assert set(found.significant(1.0).index) == set(rows.index)


def test_names_outside_the_choices_are_refused(llama: Model, task) -> None:
    encoded, cells, columns = task
    with pytest.raises(InputError, match="denoise, noise"):
        Plan("denoize")
    with pytest.raises(InputError, match="paired, mean, zero"):
        Plan(values="other")
    with pytest.raises(InputError, match="process, ray"):
        patch_cells(llama, encoded, cells, columns, engine="spark")
    with pytest.raises(InputError, match="made by hand"):
        patch_cells(llama, encoded, cells, columns, engine="ray")
    with pytest.raises(InputError, match="at least 2 pairs"):
        patch_cells(llama, encoded[:1], cells, columns)
    with pytest.raises(InputError, match="other pairs"):
        Plan(values="placebo").donors(1)


@pytest.mark.slow
def test_ray_gives_the_same_numbers(llama: Model, task, tmp_path: Path) -> None:
    encoded, cells, columns = task
    llama.hf.save_pretrained(tmp_path / "model")
    llama.tokenizer.save_pretrained(tmp_path / "model")
    model = load(tmp_path / "model")
    given = {"n_boot": 0, "n_flips": 0}
    here = patch_cells(model, encoded, cells, columns, **given)
    there = patch_cells(
        model, encoded, cells, columns, engine="ray", path=tmp_path / "grid", **given
    )
    pd.testing.assert_frame_equal(here.rows, there.rows, atol=1e-6, rtol=0)
    assert (tmp_path / "grid" / "mlp_out.0").is_dir()
