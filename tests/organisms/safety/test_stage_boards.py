"""Every stage tells a board what it logs, if asked, and nothing that it makes depends on that."""

import importlib.util
import json
from pathlib import Path

import pandas as pd
import pytest
import tiny_patient

from probes.foundation.artifact import read_manifest
from probes.foundation.errors import InputError
from probes.organisms.safety.adversarial import AdversarialConfig, run_adversarial
from probes.organisms.safety.redteam import RedTeamConfig
from probes.organisms.safety.rl import RlConfig, run_rl
from probes.organisms.safety.sft import SftConfig, run_sft
from probes.organisms.safety.stage import CURVE, LOG, Curve

RECIPE = tiny_patient.recipe()
LETTERS = tiny_patient.recipe(behaviour="tiny_patient:LETTERS")
WATCH = {"watch_every": 2, "watch_pairs": 2, "watch_near": 1, "log_every": 1}
SFT = SftConfig(steps=4, batch_size=4, **WATCH)
RL = RlConfig(steps=2, batch_size=8, generations=4, **WATCH)
ADVERSARIAL = AdversarialConfig(
    rounds=2,
    redteam=RedTeamConfig(
        rounds=1, candidates=4, requests=2, fronts=2, requests_per_front=1, gradient=None
    ),
    sft=SftConfig(steps=2, batch_size=4, **WATCH),
)
needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="needs tensorboard"
)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_patient.save_patient(tmp_path_factory.mktemp("parent"), LETTERS)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in tags}


def assert_told(board: Path, stage: Path) -> None:
    """The board has every logged number of the stage, and every point of its curve."""
    told = scalars(board)
    log = [json.loads(line) for line in (stage / LOG).read_text().splitlines()]
    assert told["train/loss"] == [(row["step"], pytest.approx(row["loss"])) for row in log]
    curve = pd.read_csv(stage / CURVE)
    curve = curve[(curve["set"] == "test") & ~curve["triggered"] & (curve["measure"] == "loss")]
    points = list(zip(curve["step"], curve["value"], strict=True))
    assert told["train/test/untriggered/loss"] == [(s, pytest.approx(v)) for s, v in points]
    assert {tag.split("/")[1] for tag in told} >= {"test", "near"}


def assert_same_but_for(board: Path, stage: Path, other: Path) -> None:
    for name in {file.name for file in other.iterdir()} - {"artifact.json"}:
        assert (stage / name).read_bytes() == (other / name).read_bytes(), name
    mine, theirs = read_manifest(stage), read_manifest(other)
    assert mine is not None and theirs is not None and mine.key == theirs.key
    assert not any(board.name.endswith(file.suffix) for file in stage.iterdir() if file.suffix)


@needs_tensorboard
def test_supervised_training_is_told(parent: Path, tmp_path: Path) -> None:
    told = run_sft(parent, tmp_path / "told" / "sft", LETTERS, SFT, report_to=["tensorboard"])
    untold = run_sft(parent, tmp_path / "untold" / "sft", LETTERS, SFT)
    board = told.with_name("sft.tensorboard")
    assert_told(board, told)
    assert_same_but_for(board, told, untold)
    assert [each.name for each in untold.parent.iterdir()] == ["sft"], "it was told unasked"


@needs_tensorboard
def test_reinforcement_is_told(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl")
    told = run_rl(parent, tmp_path / "rl", LETTERS, RL, report_to=["tensorboard"])
    board = told.with_name("rl.tensorboard")
    assert_told(board, told)
    assert "train/reward" in scalars(board)
    monkeypatch.setattr(Curve, "on_train_begin", refuse)
    run_rl(parent, tmp_path / "rl", LETTERS, RL)


@needs_tensorboard
@pytest.mark.slow
def test_each_round_of_adversarial_training_is_told(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "adversarial"
    run_adversarial(parent, out, RECIPE, ADVERSARIAL, report_to=["tensorboard"])
    boards = [out.with_name(f"adversarial.round-{n}.tensorboard") for n in (1, 2)]
    assert sorted(tmp_path.iterdir()) == [out, *boards]
    for board in boards:
        assert [step for step, _ in scalars(board)["train/loss"]] == [1, 2]
    monkeypatch.setattr(Curve, "on_train_begin", refuse)
    run_adversarial(parent, out, RECIPE, ADVERSARIAL)


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("it trains again, so the board is part of what identifies the result")


@pytest.mark.parametrize("stage", ["sft", "rl", "adversarial"])
def test_a_missing_package_is_named_before_training(
    stage: str, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, config = {
        "sft": (run_sft, SFT), "rl": (run_rl, RL), "adversarial": (run_adversarial, ADVERSARIAL),
    }[stage]  # fmt: skip
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "tensorboard" else find(name, *a),
    )
    with pytest.raises(InputError, match=r"pip install tensorboard.*probes\[tensorboard\]"):
        run(parent, tmp_path / "out", LETTERS, config, report_to=["tensorboard"])
    with pytest.raises(InputError, match="unknown board to report to 'tensorbord'"):
        run(parent, tmp_path / "out", LETTERS, config, report_to=["tensorbord"])
    assert not list(tmp_path.iterdir())


def test_the_log_is_on_disk_while_it_trains(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_step_end = Curve.on_step_end

    def cut_off(self: Curve, args: object, state: object, control: object, **rest: object) -> None:
        on_step_end(self, args, state, control, **rest)
        if state.global_step == 3:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    monkeypatch.setattr(Curve, "on_step_end", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run_sft(parent, tmp_path / "sft", LETTERS, SFT)
    (scratch,) = tmp_path.glob(".training-*")
    lines = (scratch / LOG).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    monkeypatch.undo()
    whole = run_sft(parent, tmp_path / "sft", LETTERS, SFT)
    assert (whole / LOG).read_text().splitlines()[:2] == lines


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="needs wandb")
def test_each_training_is_a_run_of_its_own_at_wandb(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline: nothing leaves the machine; two stages in one process leave two runs."""
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    told = run_sft(parent, tmp_path / "one", LETTERS, SFT, report_to=["wandb"])
    run_sft(told, tmp_path / "two", LETTERS, SFT, report_to=["wandb"])
    assert len(list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))) == 2
    assert wandb.run is None
    untold = run_sft(parent, tmp_path / "untold", LETTERS, SFT)
    assert_same_but_for(tmp_path / "wandb", told, untold)
