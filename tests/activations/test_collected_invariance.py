"""Batches, order, sizes of shards and depth decide what is computed when, and no number."""

import numpy as np
import pytest
from plain_forward import CLOSE, prompt_ids, relative_error

from probes.activations.collect import collect
from probes.models.sites import Site, all_sites


@pytest.mark.parametrize(
    ("settings", "positions"),
    [
        ({"token_budget": 1}, "last"),
        ({"shard_tokens": 1}, "all"),
        ({"shard_bytes": 1}, "mean:prompt"),
        ({"shard_tokens": 90}, "all"),
    ],
)
def test_sizes_change_no_number(model, prompts, tmp_path, settings, positions):
    common = {"sites": all_sites(3), "positions": positions}
    large = collect(model, prompts, tmp_path / "large", **common, token_budget=10**6)
    small = collect(model, prompts, tmp_path / "small", **common, **settings)
    assert len(large.manifest.groups) == 1
    for site in large.sites:
        assert relative_error(small.rows(site), large.rows(site)) < 1e-5, site
    assert small.row_index.equals(large.row_index)
    assert small.prompts.equals(large.prompts)


def test_a_token_budget_of_one_runs_each_sequence_alone(model, prompts, tmp_path, passes):
    collect(model, prompts, tmp_path / "a", token_budget=1)
    assert passes == [1] * len(prompts)
    passes.clear()
    collect(model, prompts, tmp_path / "b", token_budget=10**6)
    assert len(passes) < len(prompts)
    assert sum(passes) == len(prompts)


def test_a_shard_holds_no_more_than_it_may(model, prompts, tmp_path):
    lengths = [len(prompt_ids(model, prompt)) for prompt in prompts]
    store = collect(model, prompts, tmp_path / "tokens", shard_tokens=90)
    assert len(store.manifest.groups) > 3
    for group in store.manifest.groups:
        assert group.n_tokens <= 90 or group.n_sequences == 1
    assert sum(group.n_tokens for group in store.manifest.groups) == sum(lengths)
    # Four residual sites of 32 float32 numbers: 512 bytes per row.
    store = collect(model, prompts, tmp_path / "bytes", positions="all", shard_bytes=512 * 60)
    for group in store.manifest.groups:
        assert group.n_rows <= 60 or group.n_sequences == 1
    assert len(store.manifest.groups) > 3


def test_rows_keep_the_order_of_the_prompts(model, prompts, tmp_path):
    order = np.random.default_rng(0).permutation(len(prompts))
    forward = collect(model, prompts, tmp_path / "a", shard_tokens=90)
    shuffled = collect(model, [prompts[i] for i in order], tmp_path / "b", shard_tokens=90)
    assert forward.prompts["prompt_id"].tolist() == [prompt.id for prompt in prompts]
    assert forward.prompts["triggered"].tolist() == [prompt.triggered for prompt in prompts]
    assert shuffled.prompts["prompt_id"].tolist() == [prompts[i].id for i in order]
    for site in forward.sites:
        found, expected = shuffled.matrix(site), forward.matrix(site)[order]
        assert relative_error(found, expected) < 1e-5


def test_positions_have_one_meaning_whichever_way_they_are_asked(model, prompts, tmp_path):
    every = collect(model, prompts, tmp_path / "all", positions="all")
    third = collect(model, prompts, tmp_path / "third", positions=-3)
    np.testing.assert_allclose(
        third.matrix("resid_post.0"), every.matrix("resid_post.0", position=-3), **CLOSE
    )
    np.testing.assert_allclose(
        every.matrix("resid_post.0", position=1)[4], every.tokens("resid_post.0", 4)[1], **CLOSE
    )
    assert collect(model, prompts, tmp_path / "last", positions=-1).positions == "last"
    assert collect(model, prompts, tmp_path / "last", positions=" -1").positions == "last"


def test_layers_after_the_last_site_are_not_computed(model, prompts, tmp_path):
    ran = []
    watched = {f"block {i}": block for i, block in enumerate(model.hf.model.layers)}
    watched |= {f"mlp {i}": block.mlp for i, block in enumerate(model.hf.model.layers)}
    watched |= {"norm": model.hf.model.norm, "unembedding": model.hf.lm_head}
    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: ran.append(name))
        for name, module in watched.items()
    ]
    runs = {
        "resid_post.1": ["block 0", "mlp 0", "block 1", "mlp 1"],
        "resid_pre.1": ["block 0", "mlp 0", "block 1"],
        "z.1": ["block 0", "mlp 0", "block 1"],
        "attn_out.1": ["block 0", "mlp 0", "block 1"],
        "resid_post.2": ["block 0", "mlp 0", "block 1", "mlp 1", "block 2", "mlp 2"],
    }
    try:
        for name, expected in runs.items():
            ran.clear()
            collect(model, prompts[:1], tmp_path / name, sites=[name])
            assert ran == expected, name
    finally:
        for handle in handles:
            handle.remove()


def test_sites_of_every_spelling_are_kept_once_and_in_order(model, prompts, tmp_path):
    asked = ["resid_post.-1", "blocks.0.attn.hook_z", "resid_post.2", Site("resid_pre", 1), "z.0"]
    store = collect(model, prompts, tmp_path / "s", sites=iter(asked))
    assert [str(site) for site in store.sites] == ["z.0", "resid_pre.1", "resid_post.2"]
    by_default = collect(model, prompts, tmp_path / "default")
    expected = ["resid_pre.0", "resid_post.0", "resid_post.1", "resid_post.2"]
    assert [str(site) for site in by_default.sites] == expected


def test_same_settings_give_the_same_bytes(model, prompts, tmp_path):
    for name in ("a", "b"):
        collect(model, prompts, tmp_path / name, positions="all", shard_tokens=90)
    files = {file.name for file in (tmp_path / "a").iterdir()}
    assert files == {file.name for file in (tmp_path / "b").iterdir()}
    assert len(files) > 10
    for name in files - {"provenance.json"}:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
