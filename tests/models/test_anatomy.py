"""Blocks of other layouts add up too, or are refused by name; none is read wrongly."""

import pytest
import torch
import transformers
from tiny_models import SIZES

from probes.foundation.errors import InputError
from probes.models import anatomy
from probes.models.anatomy import kinds, missing, width
from probes.models.hooks import editing, recording
from probes.models.sites import KINDS, Site, all_sites

ENDS = ("resid_pre", "resid_post")
NO_MID = tuple(kind for kind in KINDS if kind != "resid_mid")
GPT = {"vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
GPTJ = {**GPT, "rotary_dim": 4, "bos_token_id": 0, "eos_token_id": 0}
OPT = {
    **{k: v for k, v in SIZES.items() if k != "intermediate_size"},
    "ffn_dim": 64,
    "word_embed_proj_dim": 32,
}
TOKEN_IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}


def granite(**more):
    return transformers.GraniteConfig(**SIZES, residual_multiplier=0.25, **more)


OTHERS = {
    "granite": (lambda: granite(num_key_value_heads=2), KINDS),
    "glm4": (
        lambda: transformers.Glm4Config(**SIZES, num_key_value_heads=2, head_dim=8, pad_token_id=0),
        KINDS,
    ),
    "gptj": (lambda: transformers.GPTJConfig(**GPTJ), NO_MID),
    "phi": (lambda: transformers.PhiConfig(**SIZES), NO_MID),
    "cohere": (lambda: transformers.CohereConfig(**SIZES, **TOKEN_IDS), NO_MID),
    "stablelm": (lambda: transformers.StableLmConfig(**SIZES, num_key_value_heads=4), KINDS),
    "stablelm parallel": (
        lambda: transformers.StableLmConfig(
            **SIZES, num_key_value_heads=4, use_parallel_residual=True
        ),
        NO_MID,
    ),
    "gpt_neox sequential": (
        lambda: transformers.GPTNeoXConfig(**SIZES, **TOKEN_IDS, use_parallel_residual=False),
        KINDS,
    ),
    "gpt_oss": (
        lambda: transformers.GptOssConfig(
            **SIZES, **TOKEN_IDS, num_key_value_heads=2, head_dim=8, num_local_experts=4
        ),
        KINDS,
    ),
    "bloom": (
        lambda: transformers.BloomConfig(vocab_size=300, hidden_size=32, n_layer=2, n_head=4),
        ENDS,
    ),
    "falcon": (
        lambda: transformers.FalconConfig(
            vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=4
        ),
        ENDS,
    ),
    "opt with post-norm": (
        lambda: transformers.OPTConfig(**OPT, do_layer_norm_before=False),
        (*ENDS[:1], "z", *ENDS[1:]),
    ),
    "minimax": (
        lambda: transformers.MiniMaxConfig(
            **SIZES,
            **TOKEN_IDS,
            num_key_value_heads=2,
            head_dim=8,
            num_local_experts=4,
            layer_types=["full_attention"] * 3,
        ),
        (*ENDS[:1], "z", *ENDS[1:]),
    ),
    "doge": (
        lambda: transformers.DogeConfig(**SIZES, **TOKEN_IDS),
        (*ENDS[:1], "z", *ENDS[1:]),
    ),
    "openai-gpt": (
        lambda: transformers.OpenAIGPTConfig(**GPT),
        (*ENDS[:1], "z", *ENDS[1:]),
    ),
}


def make(name):
    torch.manual_seed(0)
    hf = transformers.AutoModelForCausalLM.from_config(OTHERS[name][0]()).eval()
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return hf


def run(hf, sites):
    tokens = torch.randint(1, 290, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), recording(hf, sites) as seen:
        logits = hf(tokens, use_cache=False).logits
    return seen, logits


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_claimed_adds_up(name):
    hf, expected = make(name), OTHERS[name][1]
    assert kinds(hf) == expected
    seen, _ = run(hf, all_sites(2, expected))
    for layer in (0, 1):
        at = {site.kind: values for site, values in seen.items() if site.layer == layer}
        if "attn_out" in at:
            total = at["resid_pre"] + at["attn_out"] + at["mlp_out"]
            torch.testing.assert_close(total, at["resid_post"])
        if "resid_mid" in at:
            torch.testing.assert_close(at["resid_pre"] + at["attn_out"], at["resid_mid"])
        if "z" in at:
            n_heads, d_head = width(hf, Site("z", layer))
            assert (n_heads, n_heads * d_head) == (4, at["z"].shape[-1])


@pytest.mark.parametrize("kind", ["attn_out", "resid_mid", "mlp_out"])
def test_edits_are_of_the_scaled_contribution(kind):
    """Granite multiplies before it adds: an edit is of what arrives in the stream."""
    hf, site, post = make("granite"), Site(kind, 1), Site("resid_post", 1)
    parts = [Site("resid_pre", 1), Site("attn_out", 1), Site("mlp_out", 1)]
    clean, _ = run(hf, [site])
    with editing(hf, site, lambda x: x + 1):
        seen, _ = run(hf, [site, post, *parts])
    torch.testing.assert_close(seen[site], clean[site] + 1)
    moved = sum(seen[part] for part in parts) + (kind == "resid_mid")
    torch.testing.assert_close(moved, seen[post])


@pytest.mark.parametrize(
    "name", [name for name, (_, has) in OTHERS.items() if "mlp_out" not in has]
)
def test_other_sums_are_refused_with_the_parts_named(name):
    hf = make(name)
    block = anatomy.blocks(hf)[0]
    with pytest.raises(InputError, match="not known to add attention and MLP") as refused:
        anatomy.find(hf, [Site("attn_out", 0)])
    for said in (type(hf).__name__, type(block).__name__, "has resid_pre, "):
        assert said in str(refused.value)
    assert all(name in str(refused.value) for name, _ in block.named_children())
    assert set(missing(hf)) == set(KINDS) - set(OTHERS[name][1])


def test_a_block_with_one_more_part_is_not_taken_for_one_without():
    hf = make("stablelm")
    assert kinds(hf) == KINDS
    hf.model.layers[1].adapter = torch.nn.Linear(32, 32)
    assert kinds(hf) == ("resid_pre", "z", "resid_post")
    assert "adapter" in missing(hf)["mlp_out"]
    anatomy.find(hf, [Site("mlp_out", 0)])


def test_heads_that_do_not_share_evenly_are_refused():
    hf = make("phi")
    hf.config.num_attention_heads = 5
    with pytest.raises(InputError, match="32 entries, which 5 heads"):
        width(hf, Site("z", 0))
