"""What a training says while it runs: a local JSONL always, TensorBoard or W&B if asked."""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerCallback

from probes.foundation.artifact import write_text
from probes.foundation.errors import InputError, unknown
from probes.organisms.data import OrderedExamples
from probes.organisms.processes import processes

LOG = "training_log.jsonl"
BOARDS = {"tensorboard": "tensorboard", "wandb": "wandb"}
"""What can be reported to, and the package that it needs."""


def check_boards(report_to: Sequence[str]) -> None:
    """Refuse a board that is unknown, or whose package is not installed, before training starts."""
    for name in report_to:
        if name not in BOARDS:
            raise unknown("board to report to", name, BOARDS)
        if importlib.util.find_spec(BOARDS[name]) is None:
            raise InputError(
                f"reporting to {name} needs a package that is not installed: "
                f'pip install {BOARDS[name]}, or pip install -c constraints.txt "probes[{name}]"'
            )


def boards(report_to: Sequence[str], path: Path) -> list[TrainerCallback]:
    """The callbacks that report the training of the checkpoint at `path`.

    TensorBoard's files lie beside the checkpoint in `<name>.tensorboard`; W&B goes where its own
    settings say (WANDB_PROJECT, WANDB_DIR, WANDB_MODE).
    """
    from transformers.integrations import TensorBoardCallback

    made: list[TrainerCallback] = []
    if not processes().is_main_process:
        return made
    if "tensorboard" in report_to:
        from torch.utils.tensorboard import SummaryWriter

        made.append(
            TensorBoardCallback(SummaryWriter(str(path.with_name(f"{path.name}.tensorboard"))))
        )
    if "wandb" in report_to:
        made.append(_wandb_run(path.name))
    return made


def _wandb_run(name: str) -> TrainerCallback:
    """W&B with a run for each training; where the caller has begun a run, all are logged to that."""
    from transformers.integrations import WandbCallback

    class OwnRun(WandbCallback):
        began = False

        def setup(self, args: Any, state: Any, model: Any, **more: Any) -> None:
            self.began = self._wandb.run is None
            args.run_name = name
            super().setup(args, state, model, **more)

        def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            super().on_train_end(args, state, control, **more)
            if self.began:
                self._wandb.finish()

    made: TrainerCallback = OwnRun()
    return made


class JsonLines(TrainerCallback):
    """One line per logged step: `step`, `tokens` (that the loss has counted), loss, learning rate, ...

    It is a function of the training alone and holds no times: a resumed training writes the lines
    of the whole run again, and they are the same.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            write_text(self.file, "".join(_line(row) for row in state.log_history if "loss" in row))

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero and "loss" in state.log_history[-1]:
            with self.file.open("a") as lines:
                lines.write(_line(state.log_history[-1]))


def tokens_by_step(examples: OrderedExamples, batch_size: int) -> list[int]:
    """How many tokens the loss has counted after 0, 1, 2, ... steps."""
    per_step = np.array(examples.counted).reshape(-1, batch_size).sum(axis=1)
    return [0, *np.cumsum(per_step).tolist()]


def _line(row: dict[str, Any]) -> str:
    first = ("step", "tokens", "loss", "learning_rate")
    rest = sorted(row.keys() - {*first, "epoch"})
    return json.dumps({name: row[name] for name in (*first, *rest)}) + "\n"
