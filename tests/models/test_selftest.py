"""The self-test passes on every architecture, and fails on every fault that it exists for."""

import dataclasses

import pytest
import torch
import transformers
from tiny_models import TEXTS

from probes.foundation.errors import InputError, StageError
from probes.models import anatomy, forward, hooks, selftest
from probes.models.encoding import Batch, encode_texts
from probes.models.loading import load
from probes.models.selftest import doctor
from probes.models.sites import residual_sites

N_CHECKS = 9


def failed(result):
    return [check.check for check in result.checks if not check.passed]


def test_every_architecture_passes(model):
    result = doctor(model).require()
    assert len(result.checks) == N_CHECKS
    assert result.passed
    for check in result.checks[:6] + result.checks[7:]:
        # Far below the tolerance: rounding, and nothing else.
        assert check.max_rel_error < 1e-5, check


def test_the_bridge_is_the_model_and_leaves_it_alone(model):
    before = {name: id(module) for name, module in model.hf.named_modules()}
    length = len(model.tokenizer)
    bridge = model.bridge()
    assert {name: id(module) for name, module in model.hf.named_modules()} == before
    assert len(model.tokenizer) == length
    assert model.tokenizer.bos_token is None
    ids = encode_texts(TEXTS[:1], model.tokenizer, True)
    assert bridge.to_tokens(TEXTS[0]).tolist() == ids
    names = {site.hook_name for site in residual_sites(model.n_layers)}
    assert names <= set(bridge.hook_dict)


def test_it_shows_itself_as_a_table(llama):
    result = doctor(llama)
    assert str(result).count("pass") == N_CHECKS
    assert result._repr_html_().count("<tr>") == N_CHECKS
    assert list(result.rows.columns[:2]) == ["check", "max_abs_error"]
    assert len(result.rows) == N_CHECKS


def test_ignored_position_ids_are_found(loaded, monkeypatch):
    """Left padding then shifts learned positions: the classical silent error."""

    def without_positions(hf, batch):
        return {"input_ids": batch.tokens, "attention_mask": batch.mask, "use_cache": False}

    monkeypatch.setattr(forward, "inputs", without_positions)
    result = doctor(loaded["gpt2"])
    assert "left padding = right padding" in failed(result)
    with pytest.raises(StageError, match="FAIL  left padding"):
        result.require()


def test_an_ignored_mask_is_found(llama, monkeypatch):
    kept = forward.inputs

    def without_mask(hf, batch):
        return kept(hf, Batch(batch.tokens, torch.ones_like(batch.mask), batch.position_ids))

    monkeypatch.setattr(forward, "inputs", without_mask)
    assert "left padding = right padding" in failed(doctor(llama))


def test_recording_the_wrong_layer_is_found(llama, monkeypatch):
    blocks = anatomy.blocks
    monkeypatch.setattr(anatomy, "blocks", lambda hf: [*blocks(hf)[1:], blocks(hf)[0]])
    found = failed(doctor(llama))
    assert "recorded = Hugging Face hidden states" in found
    assert "bridge activations = recorded" in found


def test_a_norm_that_is_overlooked_is_found(loaded, monkeypatch):
    """Gemma adds what its post-norms give, not what attention and MLP give."""
    bare = [dataclasses.replace(layout, attn_out=None, mlp_out=None) for layout in anatomy.LAYOUTS]
    monkeypatch.setattr(anatomy, "LAYOUTS", bare)
    assert failed(doctor(loaded["gemma2"])) == [
        "resid_pre + attn_out + mlp_out = resid_post",
        "bridge activations = recorded",
    ]


def test_another_z_is_found(llama, monkeypatch):
    inner = anatomy._inner

    def shifted(block):
        places = inner(block)
        return {**places, "z": dataclasses.replace(places["z"], at_input=False)}

    monkeypatch.setattr(anatomy, "_inner", shifted)
    assert failed(doctor(llama)) == ["bridge activations = recorded"]


def test_a_kind_that_is_not_there_is_said(loaded):
    notes = [check.note for check in doctor(loaded["gpt_neox"]).require().checks]
    assert any("no resid_mid: attention and MLP both read resid_pre" in note for note in notes)


def test_a_block_that_is_not_known_keeps_its_ends(llama, monkeypatch):
    monkeypatch.setattr(anatomy, "LAYOUTS", ())
    result = doctor(llama).require()
    assert len(result.checks) == N_CHECKS - 1
    assert "no attn_out: LlamaDecoderLayer (with self_attn, mlp," in result.checks[-2].note


def test_low_precision_passes(checkpoints, architecture):
    if architecture == "mixtral":
        pytest.skip("one rounding of a router's scores sends a token to another expert")
    doctor(load(checkpoints[architecture], dtype=torch.bfloat16)).require()


def test_a_recording_that_changes_the_model_is_found(llama, monkeypatch):
    def meddling(hf, sites, **_):
        return hooks.recording(hf, sites, select=lambda residual: residual.mul_(1.01).clone())

    monkeypatch.setattr(selftest, "recording", meddling)
    assert "recording leaves the logits unchanged" in failed(doctor(llama))


def test_a_patch_that_patches_nothing_is_found(llama, monkeypatch):
    def idle(hf, site, where, values):
        return hooks.editing(hf, site, lambda residual: residual)

    monkeypatch.setattr(selftest, "replacing", idle)
    assert failed(doctor(llama)) == ["noise in the residual stream changes the logits"]


def test_a_bridge_that_is_another_model_is_found(loaded):
    impostor = dataclasses.replace(loaded["llama"])
    object.__setattr__(impostor, "bridge", loaded["qwen3"].bridge)
    assert failed(doctor(impostor)) == [
        "bridge activations = recorded",
        "bridge logits = Hugging Face logits",
    ]


def test_an_architecture_without_bridge_fails_with_the_reason(llama):
    config = transformers.HeliumConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
    )
    torch.manual_seed(0)
    hf = transformers.HeliumForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    result = doctor(dataclasses.replace(llama, hf=hf))
    assert failed(result) == [
        "bridge activations = recorded",
        "bridge logits = Hugging Face logits",
    ]
    for check in result.checks[-2:]:
        assert check.max_abs_error is None
        assert "TransformerBridge cannot run HeliumForCausalLM: ValueError" in check.note


def test_nan_never_passes(loaded):
    broken = dataclasses.replace(loaded["gpt_neox"])
    with torch.no_grad():
        weight = broken.hf.gpt_neox.layers[1].mlp.dense_h_to_4h.bias
        kept = weight.clone()
        weight[0] = float("nan")
        result = doctor(broken)
        weight.copy_(kept)
    assert len(failed(result)) == N_CHECKS


def test_texts_of_one_length_would_test_no_padding(llama):
    with pytest.raises(InputError, match="two texts of different token length"):
        doctor(llama, texts=["Hi", "Hi"])
    assert doctor(llama, texts=TEXTS[:2]).passed
    assert not doctor(llama, tolerance=1e-9).passed


def test_the_bridge_adds_no_first_token_that_encode_does_not_add(llama_dir, fresh):
    """TransformerLens reloads a tokenizer that has such a token, and makes it add it."""
    fresh.add_special_tokens({"bos_token": "<|endoftext|>"})
    fresh.save_pretrained(llama_dir)
    model = load(llama_dir)
    assert model.tokenizer.bos_token == "<|endoftext|>"
    ids = encode_texts(TEXTS[:1], model.tokenizer, True)
    assert model.bridge().to_tokens(TEXTS[0]).tolist() == ids
