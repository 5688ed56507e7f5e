"""Activations kept while the model writes are those of reading the same tokens afterwards."""

import numpy as np
import pytest
import torch

from probes.activations.collect import collect
from probes.activations.generation import collect_generated
from probes.activations.layout import Layout
from probes.activations.store import ActivationStore
from probes.behaviour import generation
from probes.behaviour.evaluate import SamplingConfig
from probes.behaviour.sampling import sample
from probes.foundation.errors import InputError, StageError
from probes.models.hooks import recording
from probes.models.sites import all_sites

CONFIG = SamplingConfig(max_new_tokens=12, seed=3, n=2, batch_tokens=300, stop="e")


@pytest.fixture(scope="module")
def store(model, prompts, tmp_path_factory):
    path = tmp_path_factory.mktemp("generated") / "store"
    return collect_generated(
        model, prompts, path, CONFIG, positions="all", sites=all_sites(model.n_layers)
    )


def read_sequences(store) -> list[np.ndarray]:
    layouts = [Layout.from_file(store.path / g.layout.file) for g in store.manifest.groups]
    return [layout.sequence(i) for layout in layouts for i in range(layout.n_sequences)]


def test_the_texts_are_those_of_sampling(model, prompts, store):
    expected = sample(model, prompts, **CONFIG.model_dump())
    assert store.prompts["completion"].tolist() == [c.text for c in expected]
    assert store.prompts["prompt_id"].tolist() == [c.prompt_id for c in expected]
    assert len({len(c.text) for c in expected}) > 3  # rows end at different steps


def test_each_row_equals_a_plain_forward_over_the_tokens_read(model, store):
    index = store.row_index
    compared = 0
    for number, tokens in enumerate(read_sequences(store)):
        with torch.no_grad(), recording(model.hf, store.sites) as seen:
            model.hf(input_ids=torch.tensor(tokens[None].astype("int64")))
        for site in store.sites:
            ours = store.tokens(site, number)
            np.testing.assert_allclose(ours, seen[site][0].numpy(), rtol=2e-4, atol=2e-4)
            compared += len(ours)
    assert compared == len(store.sites) * len(index)
    assert (index["position"].to_numpy()[: len(tokens)] >= 0).all()


def test_what_was_read_is_the_prompt_and_all_but_the_last_token_drawn(model, prompts, store):
    """Unless an ending token was drawn after it: then the last one was read as well."""
    spans = zip(read_sequences(store), store.prompts.itertuples(), strict=True)
    for tokens, row in spans:
        answer = tokens[row.n_prompt_tokens :]
        text = model.tokenizer.decode(answer)
        assert row.completion.startswith(text) or text.startswith(row.completion)
        assert len(answer) <= CONFIG.max_new_tokens
        assert row.n_tokens == len(tokens)


def test_answer_rows_are_the_tail_of_all_rows(model, prompts, store, tmp_path):
    answers = collect_generated(model, prompts, tmp_path / "s", CONFIG, sites=["resid_post.1"])
    for i in range(len(store)):
        start = store.prompts["n_prompt_tokens"][i]
        np.testing.assert_array_equal(
            answers.tokens("resid_post.1", i), store.tokens("resid_post.1", i)[start:]
        )


def test_asked_again_it_draws_nothing_and_more_sites_need_no_new_draw(
    model, prompts, tmp_path, monkeypatch
):
    path = tmp_path / "s"
    first = collect_generated(model, prompts, path, CONFIG, sites=["resid_post.1"])

    def never(*_, **__):
        raise AssertionError("drew again")

    monkeypatch.setattr("probes.activations.generation.generate", never)
    again = collect_generated(model, prompts, path, CONFIG, sites=["resid_post.1"])
    assert again.key == first.key
    more = collect_generated(model, prompts[::-1], path, CONFIG, sites=["resid_post.1", "z.0"])
    assert more.rows("z.0").shape[0] == first.n_rows
    np.testing.assert_array_equal(
        more.tokens("resid_post.1", 0), first.tokens("resid_post.1", len(first) - 2)
    )
    more.verify()


def test_interrupted_between_chunks_it_goes_on_to_the_same_bytes(
    model, prompts, tmp_path, monkeypatch
):
    settings = {"sites": ["resid_post.1"], "shard_bytes": 4 * 4 * 32 * 12 * 5}  # 5 draws a chunk
    whole = collect_generated(model, prompts, tmp_path / "whole", CONFIG, **settings)
    assert len(whole.manifest.parts) > 3
    calls = 0
    real = generation.generate

    def third_fails(*arguments, **named):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    monkeypatch.setattr("probes.activations.generation.generate", third_fails)
    with pytest.raises(KeyboardInterrupt):
        collect_generated(model, prompts, tmp_path / "cut", CONFIG, **settings)
    assert len(ActivationStore.open(tmp_path / "cut").manifest.parts) > 0, "nothing was kept"
    monkeypatch.undo()
    collect_generated(model, prompts, tmp_path / "cut", CONFIG, **settings)
    files = sorted(file.name for file in whole.path.iterdir())
    assert files == sorted(file.name for file in (tmp_path / "cut").iterdir())
    for name in set(files) - {"provenance.json"}:
        assert (tmp_path / "cut" / name).read_bytes() == (whole.path / name).read_bytes()


def test_numbers_that_do_not_fit_are_not_stored(model, prompts, tmp_path):
    weight = model.hf.model.layers[1].mlp.down_proj.weight
    before = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.mul_(1e7)  # finite in float32
        with pytest.raises(StageError, match=r"NaN or infinite activations at resid_post\.1"):
            collect_generated(
                model, prompts, tmp_path / "s", CONFIG, sites=["resid_post.1"], dtype="float16"
            )
    finally:
        with torch.no_grad():
            weight.copy_(before)
    assert not (tmp_path / "s" / "manifest.json").exists()


def test_other_sampling_or_given_completions_are_another_origin(model, prompts, store):
    with pytest.raises(InputError, match=r"sampling\.seed: there 3, asked 4"):
        collect_generated(
            model, prompts, store.path, CONFIG.model_copy(update={"seed": 4}), positions="all"
        )
    with pytest.raises(InputError, match=r"sampling"):
        collect(model, prompts, store.path, positions="all")


def test_positions_that_generation_cannot_give_are_refused(model, prompts, tmp_path):
    with pytest.raises(InputError, match="first_answer"):
        collect_generated(model, prompts, tmp_path / "s", CONFIG, positions="trigger")
    with pytest.raises(InputError, match="no prompts"):
        collect_generated(model, [], tmp_path / "s", CONFIG)
