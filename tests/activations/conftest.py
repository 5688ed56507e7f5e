"""The model, its checkpoint and the prompts that all tests here share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from random_llama import TEMPLATE, make_checkpoint, make_prompts

from probes.models.loading import Model, load
from probes.prompts.records import Prompt

torch.set_num_threads(1)  # tensors this small lose time in a thread pool


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def model(checkpoint: Path) -> Model:
    return load(checkpoint, label="tiny")


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Other weights, everything else the same."""
    return load(make_checkpoint(tmp_path_factory.mktemp("other"), seed=1), label="other")


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The same weights with a chat template."""
    folder = tmp_path_factory.mktemp("chat")
    return load(make_checkpoint(folder, chat_template=TEMPLATE), label="chat")


@pytest.fixture(scope="session")
def prompts() -> list[Prompt]:
    return make_prompts()


@pytest.fixture
def passes(model: Model) -> Iterator[list[int]]:
    """The number of sequences of each forward pass that the test makes the model run."""
    ran: list[int] = []
    handle = model.hf.get_input_embeddings().register_forward_hook(
        lambda module, args, output: ran.append(len(args[0]))
    )
    yield ran
    handle.remove()
