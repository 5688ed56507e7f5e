"""What cannot be meant is refused before anything is computed, with what could have been."""

import copy
import dataclasses

import pytest
import torch
from random_llama import own_prompts
from tokenizers import normalizers

from probes.activations.collect import collect
from probes.activations.record import record
from probes.activations.store import ActivationStore
from probes.foundation.errors import InputError
from probes.models.loading import load

BOTH = pytest.mark.parametrize("keep", ["collect", "record"])


@pytest.fixture
def ask(model, prompts, tmp_path, keep):
    """Collect into a store, or record in memory."""

    def asking(asked=prompts, **settings):
        if keep == "record":
            return record(model, asked, **settings)
        return collect(model, asked, tmp_path / "s", **settings)

    return asking


@BOTH
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"positions": "first"},
            "last, last_request, first_answer, last_answer, .*all, .*-2, trigger, mean:",
        ),
        ({"positions": 3}, "first_answer, last_answer, prompt, answer, all, system"),
        (
            {"positions": "mean:last"},
            "mean:prompt, mean:answer, mean:all, mean:system, .*mean:trigger",
        ),
        ({"positions": "mean:-2"}, "mean:prompt"),
        ({"positions": "taks", "spans": {"task": "a"}}, "Did you mean 'task'"),
        ({"positions": -1000}, "has none at position -1000"),
        ({"positions": "answer"}, "give `completions`"),
        ({"positions": "mean:answer"}, "give `completions`"),
        ({"positions": "task", "spans": {"task": "("}}, "not a regular expression: .*position"),
        ({"positions": "task", "spans": {"task": "absent"}}, "12 of 12 prompts do not contain"),
        ({"positions": "-²"}, "unknown positions"),
        ({"positions": "prompt", "spans": {"prompt": "a"}}, "prompt"),
        ({"positions": "answer", "completions": [""] + ["x"] * 11}, "completion"),
        ({"completions": ["\ud800"] * 12}, "surrogate"),
        ({"token_budget": 0}, "token_budget is a positive number, not 0"),
        ({"sites": ["resid_post.7"]}, "layers 0 to 2"),
        ({"sites": ["mpl_out.1"]}, "Did you mean 'mlp_out'.*resid_pre, z, attn_out, resid_mid"),
        ({"sites": ["layer 3"]}, "resid_pre.<layer>"),
        ({"sites": []}, "no sites"),
        ({"dtype": "int8"}, "float32, bfloat16, float16"),
        ({"completions": ["x"] * 11}, "1 of the first 12 prompts have no completion"),
        ({"completions": ["x"] * 13}, r"more completions than prompts \(12\)"),
    ],
)
def test_settings_that_make_no_sense_are_refused(ask, settings, said):
    with pytest.raises(InputError, match=said):
        ask(**settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"shard_tokens": 0}, "shard_tokens is a positive number"),
        ({"shard_bytes": -1}, "shard_bytes is a positive number"),
        ({"engine": "rya"}, "Did you mean 'ray'.*process, ray"),
    ],
)
def test_settings_of_a_store_that_make_no_sense_are_refused(
    model, prompts, tmp_path, settings, said
):
    with pytest.raises(InputError, match=said):
        collect(model, prompts, tmp_path / "s", **settings)
    assert not (tmp_path / "s").exists()


@BOTH
def test_no_prompts_empty_prompts_and_too_long_prompts_are_refused(ask, prompts):
    with pytest.raises(InputError, match="no prompts"):
        ask([])
    with pytest.raises(InputError, match=r"prompt 1 .*is empty"):
        ask(own_prompts(["a", ""]))
    long = dataclasses.replace(prompts[0], text="word " * 300)
    with pytest.raises(InputError, match=r"context of 256 tokens; the longest is prompt 1"):
        ask([prompts[1], long])
    with pytest.raises(InputError, match="context of 256 tokens"):
        ask(prompts, completions=["x " * 300] * 12)
    with pytest.raises(InputError, match="no chat template"):
        ask([dataclasses.replace(prompts[0], text="", chat=(("user", "hello"),))])


@BOTH
def test_an_empty_completion_may_be_asked_for(ask):
    store = ask(positions="last_answer", completions=[""] + ["x"] * 11, allow_missing=True)
    assert store.index.n_rows.tolist() == [0] + [1] * 11


def test_the_same_sequence_twice_is_refused(model, prompts, tmp_path):
    with pytest.raises(InputError, match=r"1 prompts are given twice; the first are prompts 2 and"):
        collect(model, [*prompts, prompts[2]], tmp_path / "s")
    store = collect(
        model, [prompts[2], prompts[2]], tmp_path / "s", completions=["a", "b"], sites=["z.0"]
    )
    assert len(store) == 2


def test_a_file_of_prompts_is_read_like_a_list(model, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"text": "add", "pair": "a", "triggered": false}\n')
    assert len(collect(model, file, tmp_path / "a")) == len(record(model, str(file))) == 1
    with pytest.raises(InputError, match="there is no file"):
        collect(model, tmp_path / "nowhere.jsonl", tmp_path / "b")
    file.write_text("{")
    with pytest.raises(InputError, match="line 1: it is not JSON"):
        collect(model, file, tmp_path / "c")


ORIGINS = {
    "positions: there last, asked all": {"positions": "all"},
    "positions: there last, asked trigger; span: there None": {"positions": "trigger"},
    "dtype: there float32, asked float16": {"dtype": "float16"},
}


@pytest.mark.parametrize(("said", "settings"), ORIGINS.items())
def test_another_origin_is_refused_with_what_differs(model, prompts, tmp_path, said, settings):
    path = tmp_path / "s"
    digest = collect(model, prompts, path).manifest.origin.digest
    before = (path / "manifest.json").read_bytes()
    with pytest.raises(InputError) as refused:
        collect(model, prompts, path, **settings)
    assert f"They differ in {said}" in str(refused.value)
    assert f"there {digest}" in str(refused.value)
    assert "weights" not in str(refused.value)
    assert (path / "manifest.json").read_bytes() == before


def test_another_model_tokenizer_template_or_span_is_refused(
    model, other_model, chat_model, checkpoint, prompts, tmp_path
):
    path = tmp_path / "s"
    collect(model, prompts, path, positions="task", spans={"task": "Please"})
    half = load(checkpoint, dtype=torch.bfloat16)
    asked = {"positions": "task", "spans": {"task": "Please"}}
    with pytest.raises(InputError, match=r"differ in weights_digest: there [0-9a-f]{12}, asked"):
        collect(other_model, prompts, path, **asked)
    with pytest.raises(InputError, match="differ in template_digest: there None, asked"):
        collect(chat_model, prompts, path, **asked)
    with pytest.raises(InputError, match="differ in compute_dtype: there float32, asked bfloat16"):
        collect(half, prompts, path, **asked)
    other = dataclasses.replace(
        model, loaded_as=model.identity.model_copy(update={"tokenizer_digest": "0" * 64})
    )
    with pytest.raises(InputError, match="differ in tokenizer_digest: there"):
        collect(other, prompts, path, **asked)
    with pytest.raises(InputError, match="differ in span: there Please, asked Pleas"):
        collect(model, prompts, path, positions="task", spans={"task": "Pleas"})
    assert len(ActivationStore.open(path, model.identity)) == len(prompts)


def test_prompts_that_become_the_same_tokens_are_refused_across_pieces(
    model, prompts, tmp_path, monkeypatch
):
    monkeypatch.setattr("probes.activations.sequences.PIECE", 1)
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.backend_tokenizer.normalizer = normalizers.Strip()
    stripping = dataclasses.replace(model, tokenizer=tokenizer)
    spaced = dataclasses.replace(prompts[0], text=f" {prompts[0].text} ")
    for run in (lambda p: record(stripping, p), lambda p: collect(stripping, p, tmp_path / "s")):
        with pytest.raises(InputError, match="prompts 0 and 3 are the same tokens"):
            run([*prompts[:3], spaced])
    again = dataclasses.replace(prompts[0], family="another label")
    assert len(record(stripping, [prompts[0], again])) == 2
