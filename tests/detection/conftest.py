"""One planted draw of a world in which the answer is known, judged once for all tests."""

import pytest

from probes.detection.design import make_design
from probes.detection.judgement import Claim, judge
from probes.detection.worlds import WORLDS, Planted, World, plant


@pytest.fixture(scope="session")
def worlds() -> dict[str, World]:
    return {world.name: world for world in WORLDS}


@pytest.fixture(scope="session")
def tracked(worlds: dict[str, World]) -> Planted:
    return plant(worlds["W2 in 64 dimensions"], 1)


@pytest.fixture(scope="session")
def claim(tracked: Planted) -> Claim:
    return judge(
        make_design(tracked.design),
        tracked.activations,
        estimators=("discriminant", "mean_difference", "logistic"),
    )
