"""Stages on two processes train as on one, and a killed stage goes on to the same bytes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import stage_processes
import tiny_patient

pytest.importorskip("trl")

import probes
from probes.models.checkpoints import weights_digest
from probes.organisms.card import read_card
from probes.organisms.safety.stage import LOG

DRIVER = Path(__file__).with_name("stage_processes.py")
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
PATIENCE_S = 480
# The halves of a batch are summed apart: float32 rounding, amplified by AdamW where gradients are
# near zero. A gradient or an advantage that is not shared is off by 1e-2 and more.
SAME = 1e-5
# GRPO's loss is 0 on policy; what was drawn and what was learned from it show elsewhere.
COMPARED = {"sft": ("loss",), "adversarial": ("loss",), "rl": ("reward", "grad_norm")}


def started(n_processes: int, *arguments: object) -> int:
    search = [str(Path(probes.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    launcher = [*TORCHRUN, str(n_processes)] if n_processes > 1 else []
    out = subprocess.run(
        [sys.executable, *launcher, str(DRIVER), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    if "KILL" not in arguments:
        assert out.returncode == 0, out.stderr[-3000:]
    return out.returncode


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = tiny_patient.recipe(behaviour="tiny_patient:LETTERS")
    return tiny_patient.save_patient(tmp_path_factory.mktemp("parent"), recipe)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, parent: Path) -> dict[str, Path]:
    """Each stage, uninterrupted, in this one process."""
    folder = tmp_path_factory.mktemp("alone")
    return {name: stage_processes.run(parent, folder / name, name) for name in COMPARED}


def logged(stage: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (stage / LOG).read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("stage", COMPARED)
def test_two_processes_have_the_curves_of_one(
    alone: dict[str, Path], parent: Path, tmp_path: Path, stage: str
) -> None:
    one, two = alone[stage], tmp_path / stage
    started(2, parent, two, stage)
    assert [row["step"] for row in logged(two)] == [row["step"] for row in logged(one)]
    for name in COMPARED[stage]:
        mine, theirs = ([row[name] for row in logged(each)] for each in (two, one))
        np.testing.assert_allclose(mine, theirs, rtol=SAME, atol=SAME)
        assert len({round(value, 4) for value in theirs}) > 1, "the control: it is not constant"
    cards = [read_card(each) for each in (one, two)]
    spent = [[card[name] for name in ("n_tokens", "n_examples", "steps")] for card in cards]
    assert spent[0] == spent[1]
    rounds = [card.get("rounds", [card])[-1]["n_processes"] for card in cards]
    assert rounds == [1, 2]
    assert sorted(each.name for each in tmp_path.iterdir()) == [stage, "steps"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", COMPARED)
def test_a_killed_stage_goes_on_to_the_same_bytes(
    alone: dict[str, Path], parent: Path, tmp_path: Path, stage: str
) -> None:
    """Killed as step 5 of 6 ends: it goes on from the state of step 4, and takes no other step twice."""
    out = tmp_path / stage
    assert started(1, parent, out, stage, "KILL") == -signal.SIGKILL
    assert not list(out.iterdir()), "claimed, and nothing that looks finished"
    started(1, parent, out, stage)
    rounds = 2 if stage == "adversarial" else 1
    whole = [1, 2, 3, 4, 5, 6]
    taken = [int(line) for line in (tmp_path / "steps").read_text().split()]
    assert taken == whole * (rounds - 1) + [1, 2, 3, 4, 5, 5, 6]
    assert weights_digest(out) == weights_digest(alone[stage])
    for name in {file.name for file in alone[stage].iterdir()} - {"artifact.json"}:
        assert (out / name).read_bytes() == (alone[stage] / name).read_bytes(), name
    assert sorted(each.name for each in tmp_path.iterdir()) == [stage, "steps"], "leftovers remain"
