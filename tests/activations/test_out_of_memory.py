"""When memory does not hold a batch, smaller ones are run and said; one sequence must fit."""

import contextlib
import dataclasses
import warnings

import numpy as np
import pytest
import torch
from plain_forward import prompt_ids, relative_error

from probes.activations.collect import collect
from probes.activations.compute import OutOfMemoryWarning
from probes.activations.generation import collect_generated
from probes.activations.record import record
from probes.behaviour.asking import ask
from probes.behaviour.evaluate import SamplingConfig
from probes.behaviour.sampling import sample
from probes.behaviour.surprise import surprise
from probes.foundation.errors import StageError
from probes.models.encoding import encode
from probes.models.loading import load


@contextlib.contextmanager
def memory_for(model, n_sequences):
    """A machine on which a larger batch makes torch's own allocator fail."""
    sizes = []

    def allocate(module, args):
        sizes.append(len(args[0]))
        if len(args[0]) > n_sequences:
            torch.empty(1 << 60, dtype=torch.uint8)

    handle = model.hf.get_input_embeddings().register_forward_pre_hook(allocate)
    try:
        yield sizes
    finally:
        handle.remove()


@pytest.mark.parametrize("keep", [collect, record])
@pytest.mark.parametrize("positions", ["last", "all", "mean:prompt"])
def test_a_batch_too_large_is_halved_until_it_fits(model, prompts, tmp_path, keep, positions):
    asked = dataclasses.replace(prompts[0], text=prompts[0].text + " twice"), *prompts[1:]
    # Equal lengths, so that one batch holds many.
    same = [dataclasses.replace(asked[0], pair=f"p{i}") for i in range(9)]
    where = [tmp_path / "s"] if keep is collect else []
    assert model.sinks.rule is None  # found beforehand, by passes of its own
    with memory_for(model, 2) as sizes, pytest.warns(OutOfMemoryWarning, match="going on") as said:
        kept = keep(model, same, *where, positions=positions, token_budget=10**6)
    assert sizes == [9, 4, 2, 2, 5, 2, 3, 1, 2]
    assert "9 sequences of up to" in str(said[0].message)
    assert "going on with 4" in str(said[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = record(model, same, positions=positions, token_budget=1)
    for site in plain.sites:
        assert relative_error(kept.rows(site), plain.rows(site)) < 1e-5
    assert kept.row_index["position"].tolist() == plain.row_index["position"].tolist()


def test_hooks_do_not_outlive_a_failed_pass(model, prompts):
    def n_hooks() -> int:
        return sum(
            len(module._forward_hooks) + len(module._forward_pre_hooks)
            for module in model.hf.modules()
        )

    record(model, prompts)
    before = n_hooks()  # transformers leaves some of its own
    with memory_for(model, 1), pytest.warns(OutOfMemoryWarning):
        record(model, prompts, token_budget=10**6)
    assert n_hooks() == before


def test_one_sequence_that_does_not_fit_is_an_error_and_the_next_run_goes_on(
    model, prompts, tmp_path
):
    longest = max(len(prompt_ids(model, prompt)) for prompt in prompts)
    with memory_for(model, 0), pytest.raises(StageError) as refused:
        collect(model, prompts, tmp_path / "s", token_budget=1)
    assert f"out of memory with one sequence of {longest} tokens on cpu" in str(refused.value)
    assert not (tmp_path / "s" / "manifest.json").exists()
    collect(model, prompts, tmp_path / "s", token_budget=1).verify()


def test_another_error_of_the_model_is_not_taken_for_a_full_memory(model, prompts):
    def broken(module, args):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    handle = model.hf.model.layers[0].register_forward_pre_hook(broken)
    try:
        with pytest.raises(RuntimeError, match="mat1 and mat2"):
            record(model, prompts)
    finally:
        handle.remove()


def test_nan_activations_name_the_sequence_site_and_token(checkpoint, prompts, tmp_path):
    broken = load(checkpoint)
    marked = [*prompts[:7], dataclasses.replace(prompts[7], text="a ~ b"), *prompts[8:]]
    tilde = broken.tokenizer.convert_tokens_to_ids("~")
    position = encode(marked, broken.tokenizer)[7].index(tilde)
    with torch.no_grad():
        broken.hf.model.embed_tokens.weight[tilde] = float("nan")
    said = rf"at resid_pre\.0, token {position} of the sequence {marked[7].id[:12]}"
    for settings in ({}, {"token_budget": 1}, {"shard_tokens": 1}):
        with pytest.raises(StageError, match=said):
            collect(broken, marked, tmp_path / "s", positions="all", **settings)
    assert not (tmp_path / "s" / "manifest.json").exists()


@pytest.mark.parametrize("positions", ["last", "mean:prompt"])
def test_float16_overflow_is_an_error_and_not_infinity(checkpoint, prompts, tmp_path, positions):
    large = load(checkpoint)
    with torch.no_grad():
        large.hf.model.embed_tokens.weight.mul_(1e6)
    with pytest.raises(StageError, match=r"do not fit into float16"):
        collect(large, prompts, tmp_path / "half", dtype="float16", positions=positions)
    store = collect(large, prompts, tmp_path / "full", positions=positions)
    assert np.abs(store.matrix("resid_pre.0")).max() > 65504


def test_large_numbers_that_fit_are_not_refused(checkpoint, prompts, tmp_path):
    """Their sum overflows, which is the cheap sign of a number that is not finite."""
    large = load(checkpoint)
    with torch.no_grad():
        large.hf.model.embed_tokens.weight.fill_(3e38)
    store = collect(large, prompts, tmp_path / "s", sites=["resid_pre.0"])
    assert np.isfinite(store.matrix("resid_pre.0")).all()


def test_an_overflow_names_the_dtype_in_which_it_happened(checkpoint, prompts, tmp_path):
    half = load(checkpoint, dtype=torch.float16)
    with torch.no_grad():
        half.hf.model.layers[0].self_attn.o_proj.weight.fill_(60000)
    sampling = SamplingConfig(max_new_tokens=2)
    for stage in (
        lambda: collect(half, prompts, tmp_path / "s"),
        lambda: record(half, prompts, dtype="bfloat16"),
        lambda: collect_generated(half, prompts[:2], tmp_path / "g", sampling),
        lambda: sample(half, prompts[:2], max_new_tokens=2),
        lambda: surprise(half, prompts[:2]),
        lambda: ask(half, prompts[:2]),
    ):
        with pytest.raises(
            StageError, match=r"overflows in float16 .*--compute-dtype float32"
        ) as seen:
            stage()
        assert "do not fit into" not in str(seen.value) and "\n" not in str(seen.value)
