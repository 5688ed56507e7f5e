"""A tokenizer that splits years into digits, tiny random models, and pairs of unequal prompts."""

import pytest
import torch
import transformers
from patching_cases import DEFECT, EVERY, FORMAT, SAFE, TASKS, prompt, random_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from probes.models.loading import Model
from probes.patching.pairs import PatchPair, make_pairs

torch.set_num_threads(1)  # tiny matrices: more threads only wait for one another


@pytest.fixture(scope="session")
def tokenizer() -> transformers.PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([FORMAT * 9, SAFE * 9, DEFECT * 9], trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )


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
