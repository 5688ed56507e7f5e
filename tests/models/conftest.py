"""Checkpoints of every architecture, made once, loaded once."""

import copy
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from tiny_models import CONFIGS, EVERY, make_tokenizer, random_model

from probes.models.loading import Model, load

torch.set_num_threads(1)  # tensors this small lose time in a thread pool


@pytest.fixture(scope="session")
def tokenizer() -> transformers.PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(scope="session", params=EVERY)
def architecture(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, tokenizer) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in CONFIGS:
        random_model(name).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return {name: folder / name for name in CONFIGS}


@pytest.fixture(scope="session")
def loaded(checkpoints: dict[str, Path]) -> dict[str, Model]:
    return {name: load(path) for name, path in checkpoints.items()}


@pytest.fixture
def model(loaded: dict[str, Model], architecture: str) -> Model:
    return loaded[architecture]


@pytest.fixture
def llama(loaded: dict[str, Model]) -> Model:
    return loaded["llama"]


@pytest.fixture
def llama_dir(checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the Llama checkpoint that a test may spoil."""
    return Path(shutil.copytree(checkpoints["llama"], tmp_path / "spoiled"))


@pytest.fixture
def fresh(tokenizer):
    """A tokenizer that a test may change."""
    return copy.deepcopy(tokenizer)
