"""Resumable training states that are proven whole: a state counts only if its digests match."""

import json
import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from probes.foundation.artifact import write_text
from probes.foundation.digest import digest_file
from probes.organisms.processes import processes

MARKER = "complete.json"
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
            shutil.rmtree(old)


def latest_state(folder: Path) -> Path | None:
    """The newest whole state under a folder; whatever a killed run left half-written is removed."""
    for state in reversed(_states(folder)):
        if _whole(state):
            return state
        shutil.rmtree(state)
    return None


def _states(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))


def _whole(state: Path) -> bool:
    marker = state / MARKER
    return marker.exists() and marker.read_bytes() == _inventory(state).encode()


def _inventory(state: Path) -> str:
    """sha256 of each file of a state, as JSON; the marker itself is left out."""
    files = sorted(file for file in state.rglob("*") if file.is_file() and file.name != MARKER)
    return json.dumps({str(file.relative_to(state)): digest_file(file) for file in files}, indent=2)
