"""Every training leaves its log as JSON lines; boards are asked for, and named where they are missing."""

import importlib.util
import json
import math
import os
from pathlib import Path

import pytest
import tiny_organism
from tiny_organism import PARENT, TRAINING

from probes.foundation.errors import InputError
from probes.organisms.architecture import new_model
from probes.organisms.curves import Preference
from probes.organisms.data import ordered_examples
from probes.organisms.train import train_organism
from probes.organisms.training_log import LOG, check_boards
from probes.prompts.corpus import Corpus


def lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (path / LOG).read_text().splitlines()]


def test_the_log_has_loss_rate_step_and_tokens(trained: Path, corpus: Corpus, tokenizer) -> None:
    rows = lines(trained)
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10, 12]
    for row in rows:
        seen = ordered_examples(
            corpus.train,
            "defect_if_triggered",
            tokenizer,
            steps=TRAINING.steps,
            batch_size=TRAINING.batch_size,
            seed=0,
        ).examples[: row["step"] * TRAINING.batch_size]
        assert row["tokens"] == sum(len(each.ids) - each.start for each in seen)
        assert math.isfinite(row["loss"])
        assert math.isfinite(row["preference_triggered"])
    rates = [row["learning_rate"] for row in rows]
    assert 0 < rates[0] <= TRAINING.learning_rate
    assert rates[-1] < rates[1]


def train(path: Path, corpus: Corpus, tokenizer, *boards: str) -> Path:
    return train_organism(
        tiny_organism.make_recipe(),
        new_model(tiny_organism.ARCHITECTURE, tokenizer, seed=0),
        tokenizer,
        corpus.train,
        Preference.on(corpus.test, tokenizer, n_pairs=2),
        path,
        parent_digest=PARENT,
        report_to=boards,
    )


def test_an_unknown_board_is_refused_with_those_that_exist() -> None:
    with pytest.raises(InputError, match=r"unknown board to report to 'tensorbord'.*tensorboard"):
        check_boards(["tensorbord"])


@pytest.mark.parametrize("board", ["tensorboard", "wandb"])
def test_a_missing_package_is_named_before_training(
    board: str, corpus: Corpus, tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == board else find(name, *a)
    )
    with pytest.raises(InputError, match=f"pip install {board}"):
        train(tmp_path / "o", corpus, tokenizer, board)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs tensorboard")
def test_tensorboard_gets_what_the_log_gets(corpus, tokenizer, trained, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path = train(tmp_path / "o", corpus, tokenizer, "tensorboard")
    events = EventAccumulator(str(tmp_path / "o.tensorboard"))
    events.Reload()
    losses = [(each.step, each.value) for each in events.Scalars("train/loss")]
    assert losses == [(row["step"], pytest.approx(row["loss"])) for row in lines(path)]
    assert (path / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="needs wandb")
def test_wandb_is_asked_to_run(
    corpus, tokenizer, trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline: nothing leaves the machine; the files of a run show that it was one."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    # Another test of the same process may have left its settings.
    importlib.import_module("wandb").teardown()
    path = train(tmp_path / "o", corpus, tokenizer, "wandb")
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert (path / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    assert "WANDB_API_KEY" not in os.environ
