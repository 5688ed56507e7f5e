"""The grid against theorems, an unbatched reference, TransformerLens, and planted faults."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from patching_cases import CONFIGS, DEFECT, SAFE, TASKS, prompt

from probes.foundation.artifact import MANIFEST
from probes.foundation.errors import InputError, StageError
from probes.models.anatomy import blocks
from probes.models.identity import Identity
from probes.models.loading import Model
from probes.models.sites import Site
from probes.patching.engine import rows as filling
from probes.patching.engine.scoring import Scorer
from probes.patching.engine.trunk import Trunk
from probes.patching.exact import residual_grid
from probes.patching.pairs import PatchPair, encode_pairs, make_pairs
from probes.patching.result import Effects, mean_interval
from probes.patching.spans import make_columns

NATS = 1e-4


@pytest.fixture(scope="module")
def grid(model: Model, pairs: list[PatchPair]) -> Effects:
    return residual_grid(model, pairs, n_boot=200)


def cells_of(grid: Effects, **where: object) -> pd.DataFrame:
    """What was measured of the cells with these keys, pair by pair."""
    rows = grid.rows
    for name, value in where.items():
        rows = rows[rows[name] == value]
    return grid.per_prompt[grid.per_prompt["cell"].isin(rows.index)]


def test_before_the_first_block_only_the_differing_token_matters_and_restores_all(grid) -> None:
    bottom = grid.rows[grid.rows["layer"] == 0]
    year = bottom["label"] == "3→4"
    assert year.sum() == 1
    assert bottom.loc[year, "normalised"].tolist() == pytest.approx([1.0], abs=1e-4)
    assert bottom.loc[~year, "mean"].abs().max() < NATS


def test_after_the_last_block_only_the_last_prompt_token_matters(grid) -> None:
    top = grid.rows[grid.rows["layer"] == 2]
    assert top["mean"].iloc[:-1].abs().max() < NATS
    assert abs(top["mean"].iloc[-1]) > 10 * NATS


def test_each_cell_equals_a_single_forward_by_hand(
    model: Model, pairs: list[PatchPair], grid: Effects
) -> None:
    encoded = encode_pairs(pairs, model.tokenizer)
    columns = make_columns(pairs, encoded, model.tokenizer)
    middle = next(i for i, column in enumerate(columns) if column.label == "…")
    for name, c, i in [("resid_pre.0", 7, 0), ("resid_post.0", middle, 1), ("resid_post.1", -1, 2)]:
        block = blocks(model.hf)[int(name[-1])]
        column = columns[c]
        values: list[float] = []
        for ending in (encoded[i].defect, encoded[i].safe):
            stored: list[torch.Tensor] = []

            def keep(tensor: torch.Tensor, stored=stored) -> torch.Tensor:
                stored.append(tensor.clone())
                return tensor

            def put(tensor: torch.Tensor, stored=stored, column=column, i=i) -> torch.Tensor:
                changed = tensor.clone()
                for position in column.positions[i]:
                    changed[0, position] = stored[0][0, position]
                return changed

            by_hand(model.hf, block, name, keep, encoded[i].clean + ending)
            logits = by_hand(model.hf, block, name, put, encoded[i].corrupted + ending)
            n_prompt = encoded[i].n_prompt
            logs = logits[0].double().log_softmax(-1)
            values.append(
                sum(float(logs[n_prompt - 1 + k, token]) for k, token in enumerate(ending))
            )
        cell = (
            cells_of(grid, site=name, column=c % len(columns))
            .set_index("pair")
            .loc[[encoded[i].name]]
        )
        assert cell["patched"].tolist() == pytest.approx([values[0] - values[1]], abs=NATS)


def by_hand(hf, block, name, act, tokens) -> torch.Tensor:
    def before(_, args, kwargs):
        if args:
            return (act(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": act(kwargs["hidden_states"])}

    def after(_, __, output):
        return (act(output[0]), *output[1:]) if isinstance(output, tuple) else act(output)

    if name.startswith("resid_pre"):
        handle = block.register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = block.register_forward_hook(after)
    with torch.no_grad():
        logits = hf(torch.tensor([tokens]), use_cache=False).logits
    handle.remove()
    return logits


def test_every_cell_equals_transformer_lens(model: Model, tokenizer) -> None:
    from transformer_lens import patching

    members = [prompt(t, t, flag) for t in ("read it", "load it") for flag in (True, False)]
    pairs = make_pairs(members)[:1]
    encoded = encode_pairs(pairs, tokenizer)[0]
    ours = residual_grid(
        model, pairs, sites=["resid_pre.0", "resid_pre.1"], alignment="position", n_boot=0
    )
    bridge = model.bridge()
    theirs = torch.zeros(2, encoded.n_prompt)
    for ending, sign in ((encoded.defect, 1), (encoded.safe, -1)):
        clean = torch.tensor([encoded.clean + ending])
        corrupted = torch.tensor([encoded.corrupted + ending])
        where = torch.arange(encoded.n_prompt - 1, clean.shape[1] - 1)

        def metric(logits: torch.Tensor, where=where, ending=ending) -> torch.Tensor:
            logs = logits[0, where].log_softmax(-1)
            return logs.gather(1, torch.tensor(ending)[:, None]).sum()

        with torch.no_grad():
            _, cache = bridge.run_with_cache(clean)
            grid = patching.get_act_patch_resid_pre(bridge, corrupted, cache, metric)
        theirs += sign * grid[:, : encoded.n_prompt]
    patched = ours.per_prompt["patched"].to_numpy().reshape(2, -1)
    assert np.ptp(patched) > 10 * NATS
    np.testing.assert_allclose(patched, theirs.numpy(), atol=NATS)


def test_batches_and_padding_leave_no_trace(llama: Model, pairs: list[PatchPair]) -> None:
    whole = residual_grid(llama, pairs, n_boot=0)
    single = residual_grid(llama, pairs, n_boot=0, batch_tokens=1)
    pd.testing.assert_frame_equal(whole.rows, single.rows, atol=NATS, rtol=0)


def test_weights_and_hooks_are_as_before(llama: Model, pairs: list[PatchPair]) -> None:
    before = {name: value.clone() for name, value in llama.hf.state_dict().items()}
    residual_grid(llama, pairs, n_boot=0)
    for name, value in llama.hf.state_dict().items():
        assert torch.equal(value, before[name])
    for block in blocks(llama.hf):
        assert not block._forward_hooks and not block._forward_pre_hooks


def test_rows_follow_from_the_prompts_by_hand(grid: Effects) -> None:
    part = cells_of(grid, site="resid_post.0", column=9)
    assert (part["effect"] - (part["patched"] - part["unpatched"])).abs().max() < 1e-12
    row = grid.rows.query("site == 'resid_post.0' and column == 9").iloc[0]
    assert row["mean"] == pytest.approx(part["effect"].mean())
    expected = part["effect"].mean() / (part["other"] - part["unpatched"]).mean()
    assert grid.clean - grid.corrupted == pytest.approx((part["other"] - part["unpatched"]).mean())
    assert row["normalised"] == pytest.approx(expected)
    assert row["n"] == len(part) == 3
    assert (grid.rows["low"] <= grid.rows["mean"] + 1e-9).all()
    assert (grid.rows["high"] >= grid.rows["mean"] - 1e-9).all()
    assert grid.matrix().shape == (3, grid.rows["column"].nunique())
    assert grid.strongest(1)["mean"].abs().iloc[0] == grid.rows["mean"].abs().max()
    assert "<th>3→4</th>" in grid._repr_html_() and "of the difference" in repr(grid)


def test_the_interval_of_a_mean_has_the_width_that_statistics_gives_it() -> None:
    values = np.random.default_rng(0).normal(size=(5, 400))
    low, high = mean_interval(values, 4000, 0)
    half = 1.96 * values.std(-1) / 20
    np.testing.assert_allclose(high - values.mean(-1), half, rtol=0.1)
    np.testing.assert_allclose(values.mean(-1) - low, half, rtol=0.1)


def test_a_patch_that_patches_nothing_is_caught(llama: Model, pairs, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            filling, "_putter", lambda puts, source: lambda activation: activation.clone()
        )
        with pytest.raises(StageError, match="patches nothing"):
            residual_grid(llama, pairs, n_boot=0)

    def own(self, other, places, members, width):
        rows = [self._packed(i, self.plan.run(self.pairs[i])) for i in members]
        kept = self.trunk.record(rows, places)
        return {place: kept.at(place) for place in places}

    monkeypatch.setattr(Scorer, "_lined_up", own)  # what is put in is what is there
    with pytest.raises(StageError, match="does not restore the clean run"):
        residual_grid(llama, pairs, n_boot=0)


def test_columns_that_leave_a_position_out_are_caught(llama: Model, pairs, monkeypatch) -> None:
    from probes.patching import exact

    monkeypatch.setattr(exact, "make_columns", lambda *a, **k: make_columns(*a, **k)[1:])
    with pytest.raises(StageError, match="cover"):
        residual_grid(llama, pairs, n_boot=0)


def test_a_model_that_does_not_read_the_year_is_refused(llama: Model, pairs) -> None:
    from patching_cases import random_model

    blind = random_model("llama", llama.tokenizer)
    embedding = blind.hf.get_input_embeddings().weight
    three, four = llama.tokenizer.convert_tokens_to_ids(["3", "4"])
    embedding[three] = embedding[four]
    with pytest.raises(InputError, match="no effect to locate"):
        residual_grid(blind, pairs)


def test_nan_is_an_error_that_names_the_pair(llama: Model, pairs) -> None:
    from patching_cases import random_model

    broken = random_model("llama", llama.tokenizer)
    broken.hf.lm_head.weight[5] = float("nan")
    with pytest.raises(StageError, match=r"pair '\d' is not finite"):
        residual_grid(broken, pairs)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"sites": ["resid_post.9"]}, "layers 0 to 1"),
        ({"sites": ["resid_mind.0"]}, "resid_pre, resid_post"),
        ({"sites": []}, "no site"),
        ({"alignment": "left"}, "shared, position"),
    ],
)
def test_unknown_names_show_the_choices(llama: Model, pairs, arguments, said) -> None:
    with pytest.raises(InputError, match=said):
        residual_grid(llama, pairs, **arguments)


def test_one_pair_has_no_interval(llama: Model, pairs) -> None:
    with pytest.raises(InputError, match="at least 2 pairs"):
        residual_grid(llama, pairs[:1])
    assert "low" not in residual_grid(llama, pairs[:1], n_boot=0).rows


def test_prompts_beyond_the_context_are_refused(llama: Model) -> None:
    long = make_pairs([prompt("p", "do " * 90, flag) for flag in (True, False)])
    with pytest.raises(InputError, match="context of 128"):
        residual_grid(llama, long, n_boot=0)


def test_a_stopped_run_goes_on_with_the_sites_that_are_left(
    llama: Model, pairs, tmp_path: Path, monkeypatch
) -> None:
    place = tmp_path / "grid"
    whole = residual_grid(llama, pairs, path=place)
    assert {p.name for p in place.iterdir()} == {
        "unpatched", "resid_pre.0", "resid_post.0", "resid_post.1",
    }  # fmt: skip
    stamps = {p.name: (p / MANIFEST).stat().st_mtime_ns for p in place.iterdir()}
    shutil.rmtree(place / "resid_post.0")
    again = residual_grid(llama, pairs, path=place)
    pd.testing.assert_frame_equal(whole.rows, again.rows, check_exact=True)
    pd.testing.assert_frame_equal(whole.per_prompt, again.per_prompt, check_exact=True)
    changed = {
        p.name for p in place.iterdir() if (p / MANIFEST).stat().st_mtime_ns != stamps[p.name]
    }
    assert changed == {"resid_post.0"}
    monkeypatch.setattr(Trunk, "record", None)  # a finished grid needs no forward pass
    residual_grid(llama, pairs, path=place)


def test_rows_of_other_weights_or_prompts_are_refused_not_reused(
    llama: Model, pairs, tmp_path: Path
) -> None:
    residual_grid(llama, pairs, path=tmp_path, sites=["resid_pre.0"])
    with pytest.raises(InputError, match="weights_digest is 'llama' there, 'other' now"):
        other = dataclasses.replace(llama, loaded_as=Identity(weights_digest="other"))
        residual_grid(other, pairs, path=tmp_path)
    with pytest.raises(InputError, match="pairs is "):
        residual_grid(llama, pairs[::-1], path=tmp_path)


def test_cases_differ_in_length_and_cover_the_promised_architectures(tokenizer, pairs) -> None:
    assert len({pair.n_prompt for pair in encode_pairs(pairs, tokenizer)}) == len(TASKS)
    assert len(tokenizer(SAFE)["input_ids"]) > 3 and SAFE != DEFECT
    assert {"llama", "gpt2", "gpt_neox", "qwen3", "gemma2", "opt"} <= set(CONFIGS)
    assert str(Site("resid_post", 1)) == "resid_post.1"
