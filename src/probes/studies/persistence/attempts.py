"""One attempt at a cell, the same in every engine: kept if it is there, recorded however it ends."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from probes.foundation.artifact import read_manifest, verify, write_text
from probes.foundation.config import Config
from probes.foundation.errors import ProbesError, StageError
from probes.foundation.outputs import claimed
from probes.studies.persistence.cells import Cell, Outcome, Work

LEDGER = "ledger"
ENTRY = "entry.json"


class Entry(Config):
    """What the ledger says of a cell: "begun" stays there where a process was killed at work."""

    key: str
    status: Literal["begun", "done", "failed"]
    attempts: int
    seconds: float = 0.0
    reason: str = ""


def attempt(cell: Cell, out: Path, work: Work, n_threads: int) -> Outcome:
    """Make the artifact of a cell, or find it, with so many threads of torch.

    Whatever of ours it raises is a failure with that reason; other errors are faults of the
    program and end the grid. One process works on a cell at a time; another one waits, and then
    finds it done.
    """
    with claimed(out / LEDGER / cell.name):
        entry = read_entry(cell, out)
        before = 0
        if entry is not None and entry.key == cell.key:
            if entry.status == "done" and read_manifest(out / cell.name) is not None:
                return _kept(cell, out, entry)
            before = entry.attempts
        attempts = before + 1
        _write(cell, out, Entry(key=cell.key, status="begun", attempts=attempts))
        began = time.perf_counter()
        try:
            with threads(n_threads):
                work(cell, out)
            if read_manifest(out / cell.name) is None:
                raise StageError(f"{cell.name} ended without an artifact in its place")
        except ProbesError as error:
            outcome = Outcome("failed", str(error), _since(began), attempts)
        else:
            outcome = Outcome("done", "", _since(began), attempts)
        assert outcome.status != "skipped"
        _write(
            cell,
            out,
            Entry(
                key=cell.key,
                status=outcome.status,
                attempts=attempts,
                seconds=outcome.seconds,
                reason=outcome.reason,
            ),
        )
        return outcome


def lost(cell: Cell, out: Path, reason: str) -> Outcome:
    """Record a cell whose workers died, however often it was tried."""
    entry = read_entry(cell, out)
    attempts = entry.attempts if entry is not None and entry.key == cell.key else 0
    _write(cell, out, Entry(key=cell.key, status="failed", attempts=attempts, reason=reason))
    return Outcome("failed", reason, 0.0, attempts)


def read_entry(cell: Cell, out: Path) -> Entry | None:
    """What the ledger says of a cell, or None where it was never begun."""
    path = out / LEDGER / cell.name / ENTRY
    return Entry.from_file(path) if path.exists() else None


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads of torch for a while: another number of threads adds up in another order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _kept(cell: Cell, out: Path, entry: Entry) -> Outcome:
    try:
        verify(out / cell.name)
    except ProbesError as error:
        return Outcome("failed", str(error), 0.0, entry.attempts)
    return Outcome("done", "", entry.seconds, entry.attempts, kept=True)


def _write(cell: Cell, out: Path, entry: Entry) -> None:
    write_text(out / LEDGER / cell.name / ENTRY, entry.to_json())


def _since(began: float) -> float:
    return round(time.perf_counter() - began, 6)
