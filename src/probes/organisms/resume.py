"""Resumable training states that are proven whole: a state counts only if its digests match."""

import json
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerState
from transformers.trainer_pt_utils import safe_globals

from probes.foundation.artifact import write_text
from probes.foundation.digest import digest_file
from probes.foundation.errors import IntegrityError
from probes.foundation.folders import check_tree, files_below, remove
from probes.organisms.processes import processes

MARKER = "complete.json"
STATE = re.compile(r"checkpoint-([0-9]{1,9})")
TRAINER_STATE = "trainer_state.json"
TENSORS = (".pt", ".pth", ".bin")
ARGUMENTS = "training_args.bin"  # the Trainer writes it, and does not read it
KEEP = 2
"""States kept on disk: the newest, and one more in case the newest was cut off."""


class CompleteStates(TrainerCallback):
    """After each state the Trainer saved: write the digests of its files, then drop old states.

    Each process saves what is its own; the first one waits for all.
    """

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        processes().wait_for_everyone()
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        write_text(folder / MARKER, _inventory(folder))
        for old in _states(Path(args.output_dir))[:-KEEP]:
            remove(old)


def latest_state(folder: Path) -> Path | None:
    """The newest whole state under a folder; whatever a killed run left half-written is removed.

    Raises `IntegrityError` for a folder with links in it, and for a state that cannot be read
    without running code from it.
    """
    if folder.is_symlink():
        raise IntegrityError(f"{folder} is a link: a training state lies in a folder of its own")
    check_tree(folder)
    for state in reversed(_states(folder)):
        if _whole(state):
            _check_readable(state)
            return state
        remove(state)
    return None


def _states(folder: Path) -> list[Path]:
    named = {path: STATE.fullmatch(path.name) for path in folder.iterdir()}
    numbers = {path: int(found[1]) for path, found in named.items() if found}
    return sorted(numbers, key=numbers.__getitem__)


def _check_readable(state: Path) -> None:
    """Read a state as the Trainer will, so that what it cannot read is one message and not a traceback."""
    try:
        TrainerState.load_from_json(str(state / TRAINER_STATE))
        for file in sorted(state.iterdir()):
            if file.suffix in TENSORS and file.name != ARGUMENTS:
                with safe_globals():
                    torch.load(file, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError, RuntimeError, ValueError, TypeError, KeyError, EOFError, OSError,
        AttributeError, IndexError, UnicodeError,
    ) as error:  # fmt: skip
        raise IntegrityError(
            f"{state} is a training state that cannot be read ({type(error).__name__}): it holds other "
            "things than tensors and numbers, or another version wrote it. Delete it and run the same "
            "command again: training goes on from the state before it, or from the start"
        ) from error


def _whole(state: Path) -> bool:
    marker = state / MARKER
    return marker.exists() and marker.read_bytes() == _inventory(state).encode()


def _inventory(state: Path) -> str:
    """sha256 of each file of a state, as JSON; the marker itself is left out."""
    files = [file for file in files_below(state) if file.name != MARKER] if state.is_dir() else []
    return json.dumps({str(file.relative_to(state)): digest_file(file) for file in files}, indent=2)
