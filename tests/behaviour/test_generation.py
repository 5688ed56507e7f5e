"""The sampling loop: transformers' own tokens greedily, right in distribution, own seeds."""

import copy
import dataclasses
import itertools

import numpy as np
import pytest
import torch
import transformers

from probes.behaviour.generation import (
    ReservedLayer,
    Stopping,
    _draw,
    generate,
    reserved_cache,
    stopping,
)
from probes.foundation.errors import InputError, StageError
from probes.models.encoding import encode, pad, position_ids
from probes.models.loading import Model
from probes.prompts.records import Prompt

NEVER = Stopping(frozenset(), None, frozenset(), None)


def peer_greedy(
    model: Model, sequences: list[list[int]], n: int, eos: int | None
) -> list[list[int]]:
    """transformers' `generate`, one prompt at a time: no padding can play a part."""
    settings = transformers.GenerationConfig(
        max_new_tokens=n, do_sample=False, pad_token_id=1, eos_token_id=eos
    )
    out = []
    for tokens in sequences:
        ids = torch.tensor([tokens])
        full = model.hf.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings
        )
        new = full[0, len(tokens) :].tolist()
        out.append(new[: new.index(eos)] if eos in new else new)
    return out


def run(model: Model, sequences: list[list[int]], n: int = 24, **settings: object):
    defaults = {
        "uniforms": None, "max_new_tokens": n, "temperature": 1.0, "pad_id": 1, "stop": NEVER,
    }  # fmt: skip
    return generate(model.hf, sequences, **(defaults | settings))


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "gemma2"])
def test_greedy_equals_transformers_generate(
    models_by_name: dict[str, Model], architecture: str, prompts: list[Prompt]
) -> None:
    model = models_by_name[architecture]
    sequences = encode(prompts, model.tokenizer)
    expected = peer_greedy(model, sequences, 24, eos=None)
    assert [row.tokens for row in run(model, sequences)] == expected
    assert len({tuple(tokens) for tokens in expected}) > 1


def test_rows_that_end_are_dropped_and_the_others_go_on_unchanged(
    llama: Model, prompts: list[Prompt]
) -> None:
    sequences = encode(prompts, llama.tokenizer)
    free = peer_greedy(llama, sequences, 24, eos=None)
    for eos in (free[0][9], free[5][3], free[7][0]):
        rows = run(llama, sequences, stop=dataclasses.replace(NEVER, eos=frozenset({eos})))
        assert [row.tokens for row in rows] == peer_greedy(llama, sequences, 24, eos=eos)
        assert [row.finished for row in rows] == [eos in tokens for tokens in free]


def test_a_draw_follows_the_whole_distribution_at_its_temperature() -> None:
    logits = torch.tensor([[0.0, 1.0, -float("inf"), 2.0, -9.0]])
    n = 20000
    u = (np.arange(n) + 0.5) / n
    for temperature in (0.5, 1.0, 2.0):
        drawn = _draw(logits.expand(n, -1), u, temperature)
        share = torch.bincount(drawn, minlength=5) / n
        expected = (logits[0] / temperature).softmax(-1)
        assert torch.allclose(share, expected, atol=1.5 / n)
    ends = _draw(logits.expand(2, -1), np.array([0.0, np.nextafter(1.0, 0.0)]), 1.0)
    assert ends.tolist() == [0, 4]
    impossible = torch.tensor([[-float("inf"), 1.0, -float("inf")]])
    for u_end in (0.0, np.nextafter(1.0, 0.0)):
        assert _draw(impossible, np.array([u_end]), 1.0).tolist() == [1]


def test_the_stop_string_ends_a_row_wherever_tokens_split_it(llama: Model) -> None:
    stop = stopping(llama.hf, llama.tokenizer, "</code>")
    spelled = llama.tokenizer("x > 1</code>")["input_ids"]
    seen = [stop.ended(spelled[: k + 1]) for k in range(len(spelled))]
    assert seen == [False] * (len(spelled) - 1) + [True]


def test_several_ending_tokens_of_a_checkpoint_all_count(llama: Model) -> None:
    kept = llama.hf.generation_config.eos_token_id
    try:
        llama.hf.generation_config.eos_token_id = [7, 9]
        assert stopping(llama.hf, llama.tokenizer, None).eos == {0, 7, 9}
    finally:
        llama.hf.generation_config.eos_token_id = kept
    with pytest.raises(InputError, match="empty"):
        stopping(llama.hf, llama.tokenizer, "")


def test_logits_that_are_not_finite_stop_the_stage(llama: Model, prompts: list[Prompt]) -> None:
    broken = dataclasses.replace(llama, hf=copy.deepcopy(llama.hf))
    with torch.no_grad():
        broken.hf.model.norm.weight[3] = float("nan")
    with pytest.raises(StageError, match="not finite at new token 1"):
        run(broken, encode(prompts, broken.tokenizer))


def test_reserved_cache_equals_the_growing_one(llama: Model, prompts: list[Prompt]) -> None:
    batch = pad(encode(prompts, llama.tokenizer), 1, side="left")
    caches = [transformers.DynamicCache(config=llama.hf.config), reserved_cache(llama.hf, 200)]
    assert all(type(layer) is ReservedLayer for layer in caches[1].layers)
    tokens, mask = batch.tokens, batch.mask
    with torch.inference_mode():
        for step in range(4):
            positions = position_ids(mask)[:, -tokens.shape[1] :]
            one, two = (
                llama.hf(
                    input_ids=tokens, attention_mask=mask, position_ids=positions,
                    past_key_values=cache,
                ).logits[:, -1]
                for cache in caches
            )  # fmt: skip
            assert torch.equal(one, two)
            tokens = one.argmax(-1, keepdim=True)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            if step == 1:
                kept = torch.tensor([5, 0, 2])
                for cache in caches:
                    cache.batch_select_indices(kept)
                tokens, mask = tokens[kept], mask[kept]
    small = reserved_cache(llama.hf, 3)
    with pytest.raises(IndexError, match="room for 3"):
        llama.hf(input_ids=batch.tokens, past_key_values=small)


def test_a_sample_does_not_depend_on_its_batch(llama: Model, prompts: list[Prompt]) -> None:
    sequences = encode(prompts, llama.tokenizer)
    u = np.random.default_rng(0).random((len(sequences), 24))
    together = run(llama, sequences, uniforms=u)
    alone = list(
        itertools.chain.from_iterable(
            run(llama, [tokens], uniforms=u[i : i + 1]) for i, tokens in enumerate(sequences)
        )
    )
    assert [row.tokens for row in together] == [row.tokens for row in alone]


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "gemma2"])
def test_equal_sequences_are_read_once_and_continued_on_their_own(
    models_by_name: dict[str, Model], architecture: str, prompts: list[Prompt]
) -> None:
    """Samples of one prompt differ by their draws alone: what each gets in a batch by itself."""
    model = models_by_name[architecture]
    few = encode(prompts, model.tokenizer)[:3]
    sequences = [few[i] for i in (0, 1, 0, 2, 1, 0)]
    uniforms = np.random.default_rng(0).random((len(sequences), 6))
    widths: list[int] = []
    hook = model.hf.register_forward_pre_hook(
        lambda _module, _args, kwargs: widths.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    together = run(model, sequences, 6, uniforms=uniforms, shared=True)
    hook.remove()
    assert widths == [3] + [6] * 5
    alone = [
        run(model, [each], 6, uniforms=uniforms[i : i + 1])[0] for i, each in enumerate(sequences)
    ]
    assert [row.tokens for row in together] == [row.tokens for row in alone]
