"""The shapes that the numerical code states are checked in every test: a wrong one is refused."""

import os
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch

import probes
from probes.evaluation.auroc import auroc_columns
from probes.probing.batched.closed import Fold

PACKAGE = Path(probes.__file__).parent


def test_a_wrong_shape_is_refused_at_the_border() -> None:
    y, scores = np.array([[True], [False]]), np.array([[1.0], [0.0]])
    assert auroc_columns(y, scores) == [1.0]
    with pytest.raises(jaxtyping.TypeCheckError):
        auroc_columns(y, scores[:, 0])
    with pytest.raises(jaxtyping.TypeCheckError):
        auroc_columns(y, np.array([[1.0], [0.0], [0.5]]))


def test_a_dataclass_and_a_property_are_checked_too() -> None:
    X, y = torch.zeros(1, 3, 2), torch.tensor([True, False, True])
    assert Fold(X, y, None).class_means[0].shape == (1, 2)
    with pytest.raises(jaxtyping.TypeCheckError):
        Fold(X, y[:2], None)
    with pytest.raises(jaxtyping.TypeCheckError):
        Fold(X, y, torch.zeros(1, 3))
    swapped = Fold(X, y, None)
    object.__setattr__(swapped, "X", torch.zeros(1, 3, 2, 2))
    with pytest.raises(jaxtyping.TypeCheckError):
        _ = swapped.class_means


def test_no_module_hides_its_shapes_from_the_check() -> None:
    """Postponed annotations are strings, which the check does not see."""
    hiding = [f for f in PACKAGE.rglob("*.py") if "import annotations" in f.read_text()]
    assert hiding == []


def test_one_thread_and_no_network() -> None:
    assert torch.get_num_threads() == 1
    assert os.environ["HF_HUB_OFFLINE"] == "1"
