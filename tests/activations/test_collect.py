"""What is stored is what a plain forward pass per prompt gives, and nothing else was computed."""

import dataclasses

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from probes.activations.collect import collect
from probes.foundation.errors import InputError, StageError
from probes.models.encoding import encode
from probes.models.loading import load
from probes.models.sites import Site

# float32 rounding over three layers of entries of order 1.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def plain(model, prompts):
    """Hidden states of each prompt alone, `[depth][prompt][pos, d_model]`; the last is normed."""
    results = []
    with torch.no_grad():
        for ids in encode(prompts, model.tokenizer):
            out = model.hf(torch.tensor([ids]), output_hidden_states=True)
            results.append([states[0].numpy() for states in out.hidden_states])
    return list(zip(*results, strict=True))


def test_last_token_of_every_layer_equals_a_plain_forward(model, prompts, tmp_path):
    store = collect(model, prompts, tmp_path / "s", token_budget=100, shard_prompts=5)
    assert [str(site) for site in store.sites] == [
        "resid_pre.0",
        "resid_post.0",
        "resid_post.1",
        "resid_post.2",
    ]
    for site, states in zip(store.sites[:-1], plain(model, prompts), strict=False):
        expected = np.stack([state[-1] for state in states])
        np.testing.assert_allclose(store.matrix(site), expected, **CLOSE)
    with torch.no_grad():
        normed = model.hf.model.norm(torch.tensor(store.matrix("resid_post.2"))).numpy()
    final = np.stack([state[-1] for state in plain(model, prompts)[-1]])
    np.testing.assert_allclose(normed, final, **CLOSE)


def test_all_tokens_are_stored_ragged_and_without_pads(model, prompts, tmp_path):
    store = collect(model, prompts, tmp_path / "s", positions="all", shard_prompts=5)
    lengths = [len(ids) for ids in encode(prompts, model.tokenizer)]
    assert len(set(lengths)) > 3
    assert store.prompts["n_tokens"].tolist() == lengths
    assert store.manifest.n_rows == sum(lengths)
    for i, state in enumerate(plain(model, prompts)[2]):
        np.testing.assert_allclose(store.tokens("resid_post.1", i), state, **CLOSE)
    index = store.row_index
    assert index["prompt_index"].tolist() == np.repeat(np.arange(len(prompts)), lengths).tolist()
    assert index["position"].tolist() == [p for n in lengths for p in range(n)]


def test_the_last_token_is_never_a_pad(model, prompts, tmp_path):
    """A pad as last token would change with the company that a prompt has in its batch."""
    together = collect(model, prompts, tmp_path / "a", sites=["resid_post.2"], token_budget=10**6)
    alone = collect(model, prompts, tmp_path / "b", sites=["resid_post.2"], token_budget=1)
    np.testing.assert_allclose(
        together.matrix("resid_post.2"), alone.matrix("resid_post.2"), **CLOSE
    )


def test_positions_from_the_end(model, prompts, tmp_path):
    every = collect(model, prompts, tmp_path / "all", positions="all")
    third = collect(model, prompts, tmp_path / "third", positions=-3)
    np.testing.assert_allclose(
        third.matrix("resid_post.0"), every.matrix("resid_post.0", position=-3), **CLOSE
    )
    np.testing.assert_allclose(
        every.matrix("resid_post.0", position=1)[4], every.tokens("resid_post.0", 4)[1], **CLOSE
    )
    assert collect(model, prompts, tmp_path / "last", positions=-1).positions == "last"


def test_rows_keep_the_order_of_the_prompts(model, prompts, tmp_path):
    forward = collect(model, prompts, tmp_path / "a", shard_prompts=5)
    backward = collect(model, prompts[::-1], tmp_path / "b", shard_prompts=5)
    assert forward.prompts["prompt_id"].tolist() == [prompt.id for prompt in prompts]
    assert forward.prompts["triggered"].tolist() == [prompt.triggered for prompt in prompts]
    np.testing.assert_allclose(
        forward.matrix("resid_post.1"), backward.matrix("resid_post.1")[::-1], **CLOSE
    )


def test_layers_after_the_last_site_are_not_computed(model, prompts, tmp_path):
    ran = []
    watched = {f"block {i}": block for i, block in enumerate(model.hf.model.layers)}
    watched |= {"norm": model.hf.model.norm, "unembedding": model.hf.lm_head}
    handles = [
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, module in watched.items()
    ]
    try:
        collect(model, prompts, tmp_path / "a", sites=["resid_post.1"], token_budget=10**6)
        assert ran == ["block 0", "block 1"]
        ran.clear()
        collect(model, prompts, tmp_path / "b", sites=[Site("resid_pre", 1)], token_budget=10**6)
        assert ran == ["block 0"]
        ran.clear()
        collect(model, prompts, tmp_path / "c", token_budget=10**6)
        assert ran == ["block 0", "block 1", "block 2"]
    finally:
        for handle in handles:
            handle.remove()


def test_a_finished_store_comes_back_without_a_forward_pass(model, prompts, tmp_path, monkeypatch):
    first = collect(model, prompts, tmp_path / "s")
    monkeypatch.setattr(LlamaForCausalLM, "forward", None)
    monkeypatch.setattr(type(model.hf.model), "forward", None)
    again = collect(model, prompts, tmp_path / "s")
    assert again.manifest == first.manifest
    with pytest.raises(TypeError):
        collect(model, prompts, tmp_path / "other")


def test_same_settings_give_the_same_bytes(model, prompts, tmp_path):
    for name in ("a", "b"):
        collect(model, prompts, tmp_path / name, positions="all", shard_prompts=5)
    files = {file.name for file in (tmp_path / "a").iterdir()}
    assert files == {file.name for file in (tmp_path / "b").iterdir()}
    for name in files - {"provenance.json"}:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


@pytest.mark.parametrize(("dtype", "step"), [("float16", 2**-10), ("bfloat16", 2**-7)])
def test_half_precision_stores_round_once(model, prompts, tmp_path, dtype, step):
    full = collect(model, prompts, tmp_path / "full").matrix("resid_post.2")
    half = collect(model, prompts, tmp_path / dtype, dtype=dtype).matrix("resid_post.2")
    assert half.dtype == (np.float16 if dtype == "float16" else np.float32)
    assert 0 < np.abs(half - full).max() <= step * np.abs(full).max()


def test_nan_activations_name_the_prompt_site_and_token(checkpoint, prompts, tmp_path):
    broken = load(checkpoint)
    marked = [*prompts[:7], dataclasses.replace(prompts[7], text="a ~ b"), *prompts[8:]]
    tilde = broken.tokenizer.convert_tokens_to_ids("~")
    position = encode(marked, broken.tokenizer)[7].index(tilde)
    with torch.no_grad():
        broken.hf.model.embed_tokens.weight[tilde] = float("nan")
    said = rf"at resid_pre\.0, token {position} of prompt 7 \(id .*, pair 'pair3'\)"
    with pytest.raises(StageError, match=said):
        collect(broken, marked, tmp_path / "s", positions="all")
    assert not (tmp_path / "s" / "manifest.json").exists()


def test_float16_overflow_is_an_error_and_not_infinity(checkpoint, prompts, tmp_path):
    large = load(checkpoint)
    with torch.no_grad():
        large.hf.model.embed_tokens.weight.mul_(1e6)
    with pytest.raises(StageError, match=r"do not fit into torch\.float16"):
        collect(large, prompts, tmp_path / "s", dtype="float16")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"positions": "first"}, "last, all"),
        ({"positions": 3}, "last, all"),
        ({"positions": -1000}, "so none at position -1000"),
        ({"sites": ["resid_post.7"]}, "layers 0 to 2"),
        ({"sites": ["mlp_out.1"]}, "resid_pre, resid_post"),
        ({"sites": []}, "no sites"),
        ({"dtype": "int8"}, "float32, bfloat16, float16"),
        ({"token_budget": 0}, "token_budget"),
        ({"shard_prompts": 0}, "shard_prompts"),
    ],
)
def test_settings_that_make_no_sense_are_refused(model, prompts, tmp_path, settings, said):
    with pytest.raises(InputError, match=said):
        collect(model, prompts, tmp_path / "s", **settings)


def test_no_prompts_and_too_long_prompts_are_refused(model, prompts, tmp_path):
    with pytest.raises(InputError, match="no prompts"):
        collect(model, [], tmp_path / "s")
    long = dataclasses.replace(prompts[0], text="word " * 300)
    with pytest.raises(InputError, match=r"context of 256 tokens; the longest is prompt 1"):
        collect(model, [prompts[0], long], tmp_path / "s")
