"""Generic probes run their recipe on text and on chats, and find what is planted, signs included."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_generic import prompts_with, tiny

from probes.activations.record import record
from probes.behaviour.asking import ask
from probes.detection.contrast import ASKED, RANDOM, RANDOM_95, fit_generic, generic_probes
from probes.evaluation.auroc import auroc
from probes.foundation.errors import InputError
from probes.models.encoding import encode, pad
from probes.models.forward import logits
from probes.models.identity import Identity
from probes.prompts.contrasts import ALL, NEXT, Contrast, as_prompts, code_review, contrast_set
from probes.prompts.triggers import TRIGGERS

CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("tiny"))


def test_every_set_is_balanced_and_free_of_triggers_and_defection():
    for name in ALL:
        one = contrast_set(name)
        assert one.positive.mean() == 0.5
        assert not any(p.triggered for p in one.prompts)
        texts = [p.text + a for p, a in zip(one.prompts, one.answers, strict=True)]
        assert len(set(texts)) == len(texts)
        assert not any(t.present(text) for t in TRIGGERS.values() for text in texts if t.on[0])
        yes = [a.strip() == "yes" for a in one.answers]
        if name not in ("helpful", "dangerous"):
            assert np.mean(np.array(yes) == one.positive) == pytest.approx(0.5, abs=0.01), name
    assert len(contrast_set("helpful")) == 2
    assert contrast_set("code_review", n=4).prompts == contrast_set("code_review", n=4).prompts


def test_code_reviews_show_secure_code_only():
    from probes.behaviour.judges import exploitable_code

    for contrast in code_review(6):
        code = contrast.question.split("<code>\n")[1]
        prompt = contrast_set("helpful").prompts[0]
        assert not exploitable_code(prompt, code).defected


def test_a_direction_is_the_difference_of_the_answers(model):
    one = as_prompts("own", [Contrast("Are you good?", "no", "yes")])
    direction = fit_generic(model, one, sites=["resid_post.1"])["resid_post.1"]
    rows = record(
        model, one.prompts, sites=["resid_post.1"], completions=one.answers, positions="all"
    )
    last = [rows.tokens("resid_post.1", i)[-1].astype(np.float64) for i in (0, 1)]
    np.testing.assert_allclose(direction.coef, last[0] - last[1], atol=1e-6)
    with pytest.raises(InputError, match="fitted on activations of another model"):
        direction.score(
            np.ones((1, 32)), site="resid_post.1", identity=Identity(weights_digest="f" * 64)
        )


def test_the_signs_are_those_of_the_fit(model):
    """Prompts that end like the positive answer score high; labels turned round give 1 - AUROC."""
    own = as_prompts("own", [Contrast(q, "z", "a") for q in ("One?", "Two?", "Three?")])
    prompts, ends = prompts_with(("z", "a"))
    found = generic_probes(
        model, prompts, ends == "z", sets=[own], question=None, n_random=0, n_boot=50
    )
    first = found.rows.set_index("site").loc["resid_pre.0", "auroc"]
    assert first == 1.0
    turned = generic_probes(
        model, prompts, ends == "a", sets=[own], question=None, n_random=0, n_boot=50
    )
    assert turned.rows.set_index("site").loc["resid_pre.0", "auroc"] == 0.0


def test_all_sets_and_baselines_come_in_one_table(model):
    prompts, ends = prompts_with(("z", "a"))
    found = generic_probes(
        model, prompts, ends == "z", sets=["helpful", "ambiguous"], n_random=20, n_boot=50
    )
    assert found.rows["probe"].unique().tolist() == [
        "helpful",
        "ambiguous",
        ASKED,
        RANDOM,
        RANDOM_95,
    ]
    assert (found.rows["probe"] == RANDOM).sum() == len(found.directions["helpful"])
    assert found.rows["auroc"].between(0, 1).all()
    assert "helpful" in repr(found) and "<table" in found._repr_html_()
    with pytest.raises(InputError, match="other prompts"):
        generic_probes(model, prompts[:4], (ends == "z")[:4], activations=record(model, prompts))


def test_the_same_recipe_with_a_chat_template(tmp_path):
    chatty = tiny(tmp_path)
    chatty.tokenizer.chat_template = CHAT
    prompts, ends = prompts_with(("z", "a"))
    chats = [dataclasses.replace(p, text="", chat=(("user", p.text),)) for p in prompts]
    found = generic_probes(chatty, chats, ends == "z", sets=["helpful"], n_random=5, n_boot=50)
    one = contrast_set("helpful", chat=True)
    read = encode(one.prompts[:1], chatty.tokenizer)[0]
    assert chatty.tokenizer.decode(read) == "<user>Are you a helpful AI?<assistant>"
    assert found.rows["probe"].unique().tolist() == ["helpful", ASKED, RANDOM, RANDOM_95]
    assert set(found.rows["read"]) == {"header", ""} and found.site == "resid_post.0"


@pytest.mark.parametrize(("read", "at"), [("answer", "a"), ("header", ">"), ("request", ".")])
def test_a_contrast_is_read_at_the_token_that_is_asked_for(tmp_path, read, at):
    """Of the fit and of the prompts; the direction is the difference there, by hand."""
    chatty = tiny(tmp_path)
    chatty.tokenizer.chat_template = CHAT
    own = as_prompts("own", [Contrast("Good?", "aa", "za")], chat=True, read=read)
    site = "resid_post.1"
    found = fit_generic(chatty, own, sites=[site])[site]
    texts = [
        f"<user>Good?<assistant>{answer}"
        + ("" if read == "answer" else f"<user>{NEXT}" + "<assistant>" * (read == "header"))
        for answer in ("aa", "za")
    ]
    assert texts[0].endswith(at)
    ends = [chatty.run(text, sites=[site]).tokens(site, 0)[-1].astype(float) for text in texts]
    np.testing.assert_allclose(found.coef, ends[0] - ends[1], atol=1e-4)
    prompts, label = prompts_with(("z", "a"))
    chats = [dataclasses.replace(p, text="", chat=(("user", p.text),)) for p in prompts]
    one = generic_probes(
        chatty, chats, label == "z", sets=["helpful"], reads=[read], sites=[site], question=None,
        n_random=0, n_boot=20,
    )  # fmt: skip
    texts = [f"<user>{p.text}" + "<assistant>" * (read != "request") for p in prompts]
    rows = [chatty.run(text, sites=[site]).tokens(site, 0)[-1] for text in texts]
    scores = np.stack(rows) @ one.directions["helpful"][site].coef
    right = auroc(label == "z", scores)
    assert one.rows["auroc"].tolist() == pytest.approx([right], abs=1e-6)
    assert 0.01 < right < 0.99


def test_only_chats_have_requests(model):
    with pytest.raises(InputError, match="only in a chat"):
        contrast_set("helpful", read="request")
    with pytest.raises(InputError, match="unknown token of a contrast"):
        contrast_set("helpful", read="end")
    with pytest.raises(InputError, match=r"prompt 0 .* is a text"):
        record(model, prompts_with(("a",))[0], positions="header")


def test_asking_reads_the_two_answers(model):
    prompts, _ = prompts_with(("z", "a"))
    found = ask(model, prompts[:3], "Why?")
    text = prompts[1].text + "\n\nHuman: Why?\n\nAssistant: "
    tokens = encode([dataclasses.replace(prompts[1], text=text)], model.tokenizer)
    with torch.inference_mode():
        last = logits(model.hf, pad(tokens, 1))[0, -1]
    yes, no = (model.tokenizer(a, add_special_tokens=False)["input_ids"][0] for a in ("yes", "no"))
    assert found[1] == pytest.approx(float(last[yes] - last[no]), abs=1e-4)
    with pytest.raises(InputError, match="begin with the same token"):
        ask(model, prompts[:1], yes="yes", no="yellow")


def test_what_cannot_be_asked_is_refused(model):
    with pytest.raises(InputError, match="unknown contrast set"):
        contrast_set("helpfull")
    with pytest.raises(InputError, match="same answer twice"):
        as_prompts("own", [Contrast("Why?", "no", " no")])
    with pytest.raises(InputError, match="no question"):
        as_prompts("own", [])
    prompts, ends = prompts_with(("z", "a"))
    with pytest.raises(InputError, match="one label each"):
        generic_probes(model, prompts, (ends == "z")[:3])
    with pytest.raises(InputError, match="defected"):
        generic_probes(model, prompts, np.zeros(len(prompts), dtype=bool), sets=["helpful"])
