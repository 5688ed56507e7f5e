"""Attention sinks are found by their norms, and decide no maximum, mean or probe unless asked to."""

import numpy as np
import pytest
import torch

from probes.models.loading import load
from probes.models.selftest import _overall, doctor
from probes.models.sinks import find_sinks, sink_masks


def test_a_random_model_of_any_architecture_has_none(model):
    assert model.sinks.rule is None and model.sinks.note == ""
    assert not np.concatenate(sink_masks(model, [[1, 2, 3], [4]])).any()


@pytest.mark.parametrize("kind", ["gpt2", "opt", "llama"])
def test_a_planted_sink_is_found_where_it_is(kind, checkpoints, tokenizer):
    model = load(checkpoints[kind])
    token = tokenizer("Q", add_special_tokens=False)["input_ids"][0]
    with torch.no_grad():
        if kind == "llama":  # a token that is a sink wherever it stands
            model.hf.model.embed_tokens.weight[token] += 50.0
        elif kind == "gpt2":  # the first position, whatever stands there
            model.hf.transformer.wpe.weight[0] += torch.randn(32) * 50
        else:
            model.hf.model.decoder.embed_positions.weight[2] += torch.randn(32) * 50
    found = find_sinks(model)
    assert found.rule is not None
    assert ("'Q'" if kind == "llama" else "token 0") in found.note
    sequences = [[5, 6, token, 7], [token, 9], [8]]
    expected = [[0, 0, 1, 0], [1, 0], [0]] if kind == "llama" else [[1, 0, 0, 0], [1, 0], [1]]
    masks = sink_masks(model, sequences, found.rule)
    assert [mask.astype(int).tolist() for mask in masks] == expected


def test_the_self_test_names_sinks_and_they_hide_no_error(checkpoints):
    model = load(checkpoints["gpt2"])
    assert doctor(model).note == ""
    model = load(checkpoints["gpt2"])
    with torch.no_grad():
        model.hf.transformer.wpe.weight[0] += torch.randn(32) * 50
    result = doctor(model)
    assert result.passed, result
    for shown in (result.note, str(result), result._repr_html_()):
        assert "attention sinks: token 0 (residual norm up to" in shown
    expected = torch.ones(4, 2)
    expected[0] = 1e6
    seen = expected.clone()
    seen[2] += 0.5
    sinks = torch.tensor([True, False, False, False])
    assert _overall(seen, expected, sinks)[1] == pytest.approx(0.5 / 3**0.5)
    assert _overall(seen, expected, torch.zeros(4, dtype=torch.bool))[1] < 1e-6
