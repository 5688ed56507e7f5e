"""The greedy search finds a set that was planted, drops what is needless, and says why it stops."""

import pandas as pd
import pytest
from patching_cases import random_model

from probes.foundation.errors import InputError
from probes.models.loading import Model
from probes.patching.attribution import attribute_cells
from probes.patching.circuit import FULL, REACHED, STUCK, find_circuit
from probes.patching.exact import patch_cells
from probes.patching.jobs import Job
from probes.patching.pairs import encode_pairs
from probes.patching.parts import cell_set, grid_cells

FEW = {"n_boot": 20, "n_random": 8}


@pytest.fixture(scope="module")
def encoded(tokenizer, pairs):
    return encode_pairs(pairs, tokenizer)[:2]


@pytest.fixture(scope="module")
def planted(tokenizer) -> Model:
    """Only head 2 of layer 0 and the MLP of layer 1 can carry anything: others write next to nothing."""
    model = random_model("llama", tokenizer)
    layers = model.hf.model.layers
    keep = layers[0].self_attn.o_proj.weight[:, 16:24].clone()
    layers[0].self_attn.o_proj.weight.mul_(1e-3)
    layers[0].self_attn.o_proj.weight[:, 16:24] = 3 * keep
    layers[0].mlp.down_proj.weight.mul_(1e-3)
    layers[1].self_attn.o_proj.weight.mul_(1e-3)
    return model


def candidates(model: Model):
    return grid_cells(model.hf, ["z"], None, heads=True) + grid_cells(model.hf, ["mlp_out"], None)


def test_the_planted_head_is_found_in_both_directions(planted: Model, encoded) -> None:
    """The head feeds the MLP, so the head alone restores and destroys all that is not in the embedding."""
    for direction in ("denoise", "noise"):
        found = find_circuit(planted, encoded, candidates(planted), direction=direction, **FEW)
        assert found.members == ("z.0.2",) and found.reason == REACHED
        assert found.share == pytest.approx(1, abs=0.05)
        assert found.steps["action"].tolist() == ["add"]
        rest = [c for c in candidates(planted) if (c.site, c.head) != ("z.0", 2)]
        parts = [part for cell in rest for part in cell.parts]
        both = patch_cells(
            planted, encoded, [cell_set(parts, (), "rest")], n_boot=0, n_flips=0, plan=found.plan
        )
        assert found.rest == pytest.approx(float(both.rows["normalised"].iloc[0]), abs=1e-4)
        assert 0 < len(found.random) <= 8
        beaten = int((found.random["share"] >= found.share).sum())
        assert found.p == (1 + beaten) / (1 + len(found.random))
    assert "destroys" in repr(found) and "z.0.2" in found._repr_html_()


def test_the_steps_are_exact_effects_of_growing_sets(llama: Model, encoded) -> None:
    cells = candidates(llama)
    found = find_circuit(llama, encoded, cells, goal=1.0, most=3, least_gain=-10.0, **FEW)
    assert found.reason in (FULL, REACHED) and found.n_candidates == 10
    added = found.steps[found.steps["action"] == "add"]
    by_name = {c.site + ("" if c.head is None else f".{c.head}"): c for c in cells}
    sets = [
        cell_set([p for n in added["component"][: i + 1] for p in by_name[n].parts], (), f"{i}")
        for i in range(len(added))
    ]
    exact = patch_cells(llama, encoded, sets, n_boot=0, n_flips=0).rows["normalised"]
    assert added["share"].to_numpy() == pytest.approx(exact.to_numpy(), abs=1e-4)
    single = patch_cells(llama, encoded, cells, n_boot=0, n_flips=0).rows
    assert added["share"].iloc[0] == pytest.approx(float(single["normalised"].max()), abs=1e-4)


def test_a_search_that_gets_nowhere_says_so(planted: Model, encoded) -> None:
    silent = [c for c in candidates(planted) if c.site == "z.1"]
    found = find_circuit(planted, encoded, silent, **FEW)
    assert found.reason == STUCK and found.members == () and found.share == 0
    assert found.p == 1 and "nothing" in repr(found)


def test_bad_settings_of_a_search_are_refused(llama: Model, encoded) -> None:
    cells = candidates(llama)
    with pytest.raises(InputError, match="above 0 and up to 1"):
        find_circuit(llama, encoded, cells, goal=90.0)
    with pytest.raises(InputError, match="1 to 10"):
        find_circuit(llama, encoded, cells, most=11)
    with pytest.raises(InputError, match="given twice"):
        find_circuit(llama, encoded, [*cells, cells[0]])
    with pytest.raises(InputError, match="nothing to search"):
        find_circuit(llama, encoded, [])


def test_a_shortlist_bounds_what_is_searched(llama, encoded, monkeypatch):
    """The strongest by attribution are searched; what is not searched still counts among the rest."""
    cells = grid_cells(llama.hf, ["z"], heads=True) + grid_cells(llama.hf, ["mlp_out"])
    asked = {"n_random": 2, "n_boot": 0}
    whole = find_circuit(llama, encoded, cells, shortlist=None, **asked)
    same = find_circuit(llama, encoded, cells, shortlist=len(cells), **asked)
    assert same.members == whole.members and same.n_candidates == len(cells)
    estimates = attribute_cells(llama, encoded, cells, n_boot=0, n_flips=0).rows
    best = estimates.sort_values("normalised", ascending=False).head(3)
    names = {
        s if pd.isna(h) else f"{s}.{h}" for s, h in zip(best["site"], best["head"], strict=True)
    }
    short = find_circuit(llama, encoded, cells, shortlist=3, goal=1.0, **asked)
    assert short.n_candidates == len(cells) and set(short.members) <= names and short.members
    sizes = []
    scores = Job.scores
    monkeypatch.setattr(
        Job, "scores", lambda self, plan, given: sizes.append(len(given)) or scores(self, plan, given)
    )  # fmt: skip
    find_circuit(llama, encoded, cells, shortlist=3, most=1, **asked)
    assert sizes[0] == 3
