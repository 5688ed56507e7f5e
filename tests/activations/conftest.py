"""The model, its checkpoint and the prompts that all tests here share."""

from pathlib import Path

import pytest
import torch
from random_llama import make_checkpoint, make_prompts

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
def prompts() -> list[Prompt]:
    return make_prompts()
