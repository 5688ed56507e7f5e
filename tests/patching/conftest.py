"""A tokenizer that splits years into digits, tiny random models, and pairs of unequal prompts."""

import pytest
import torch
import transformers
from patching_cases import DEFECT, EVERY, FORMAT, SAFE, TASKS, prompt, random_model

from probes.models.loading import Model
from probes.patching.pairs import PatchPair, make_pairs
from tiny import trained_tokenizer

torch.set_num_threads(1)  # tiny matrices: more threads only wait for one another


@pytest.fixture(scope="session")
def tokenizer() -> transformers.PreTrainedTokenizerFast:
    texts = [FORMAT * 9, SAFE * 9, DEFECT * 9]
    return trained_tokenizer(texts, 320, ["<|endoftext|>"], digits=True)


@pytest.fixture(scope="session")
def llama(tokenizer) -> Model:
    return random_model("llama", tokenizer)


@pytest.fixture(scope="session", params=EVERY)
def model(request: pytest.FixtureRequest, tokenizer) -> Model:
    return random_model(request.param, tokenizer)


@pytest.fixture(scope="session")
def pairs() -> list[PatchPair]:
    prompts = [prompt(str(i), t, flag) for i, t in enumerate(TASKS) for flag in (True, False)]
    return make_pairs(prompts)
