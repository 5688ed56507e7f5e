"""Workers of a patching grid: a killed one costs the site in its hands, and what it raises is told."""

import dataclasses
import os
import signal
import sys
from pathlib import Path

import pandas as pd
import pytest

from probes.foundation.errors import InputError, StageError
from probes.models.loading import Model, load
from probes.patching.exact import patch_cells
from probes.patching.measures import LogProbDifference, OfLogits
from probes.patching.pairs import encode_pairs
from probes.patching.parts import grid_cells

pytestmark = pytest.mark.slow
NONE = {"n_boot": 0, "n_flips": 0}


@dataclasses.dataclass(frozen=True)
class Deadly(LogProbDifference):
    """The usual metric; the process that takes it dies of it, `deaths` times, except the test's own."""

    folder: str = ""
    deaths: int = 1
    spared: int = 0

    def score(self, logits, rows, reference):
        marks = len(list(Path(self.folder).iterdir()))
        if os.getpid() != self.spared and marks < self.deaths:
            (Path(self.folder) / str(marks)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().score(logits, rows, reference)


@pytest.fixture
def here():
    """What this module defines, as workers need it: by value."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def saved(llama: Model, tmp_path_factory) -> Model:
    place = tmp_path_factory.mktemp("saved") / "model"
    llama.hf.save_pretrained(place)
    llama.tokenizer.save_pretrained(place)
    return load(place)


def test_a_killed_workers_site_is_begun_anew(cluster, saved, pairs, here, tmp_path: Path) -> None:
    encoded = encode_pairs(pairs, saved.tokenizer)
    cells = grid_cells(saved.hf, ["resid_pre", "z"])
    marks = tmp_path / "marks"
    marks.mkdir()
    deadly = Deadly(folder=str(marks), spared=os.getpid())
    there = patch_cells(saved, encoded, cells, metric=deadly, engine="ray", **NONE)
    assert [mark.name for mark in marks.iterdir()] == ["0"]
    right = patch_cells(saved, encoded, cells, **NONE)
    pd.testing.assert_frame_equal(there.rows, right.rows, atol=1e-6, rtol=0)


def test_what_ends_every_worker_or_is_wrong_is_told(
    cluster, saved, pairs, here, tmp_path: Path
) -> None:
    encoded = encode_pairs(pairs, saved.tokenizer)
    cells = grid_cells(saved.hf, ["resid_pre"], layers=[1])
    deadly = Deadly(folder=str(tmp_path), deaths=99, spared=os.getpid())
    with pytest.raises(
        StageError, match=r"3 Ray workers died while they computed resid_pre.1.*memory_budget"
    ):
        patch_cells(saved, encoded, cells, metric=deadly, engine="ray", **NONE)
    assert len(list(tmp_path.iterdir())) == 3
    own = os.getpid()

    def wrong(logits):
        return logits[:, 0] if os.getpid() == own else logits

    with pytest.raises(InputError, match="one number per prompt"):
        patch_cells(saved, encoded, cells, metric=OfLogits(wrong, "mine"), engine="ray", **NONE)
