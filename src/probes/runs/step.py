"""A grid as cells: each makes one artifact, from the artifacts of those that it needs."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from probes.foundation.artifact import PROCEDURES, read_manifest, verify, write_text
from probes.foundation.config import Config
from probes.foundation.digest import digest_json
from probes.foundation.errors import InputError, ProbesError, StageError
from probes.foundation.outputs import claimed
from probes.foundation.procedures import versions
from probes.models.speed import with_threads
from probes.organisms.organism import OrganismRecipe

Kind = Literal[
    "base", "organism", "stage", "measure", "reversal",
    "sampled", "probed", "fitted", "hidden",
]  # fmt: skip
"""The first five are of the persistence grid, the next two of the battery, the last two of the evasion study; these
have the first two as well."""
SAMPLED = ("sampling", "judging")
MADE_BY: dict[Kind, tuple[str, ...]] = {
    "base": ("training",),
    "organism": ("training", *SAMPLED),
    "stage": ("safety training", *SAMPLED),
    "measure": SAMPLED,
    "reversal": ("reversal", *SAMPLED),
    "sampled": SAMPLED,
    "probed": ("detection", "contrast probes", "activations", "surprise"),
    "fitted": ("evasion", "activations", *SAMPLED),
    "hidden": ("evasion", "training", "contrast probes", "activations", *SAMPLED),
}
"""The procedures whose versions are in the key of a cell."""
Status = Literal["done", "failed", "skipped"]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One unit of work.

    name: also the path of its artifact under the grid's folder. stage: of the checkpoint that it
    makes, measures or reverses; "installed" before any safety training. parent: the cell whose
    checkpoint it starts from, or reads. control: for a reversal, the cell of the checkpoint that
    was never poisoned. waits_for: further cells that it needs. settings: of the stage. seed: of
    safety training, where the organism is one that is given; else the recipe's seed is that of all.
    """

    name: str
    kind: Kind
    recipe: OrganismRecipe
    stage: str = "installed"
    parent: "Cell | None" = None
    control: "Cell | None" = None
    waits_for: tuple["Cell", ...] = ()
    settings: Config | None = None
    seed: int | None = None

    @property
    def needs(self) -> tuple["Cell", ...]:
        """Every cell that must be done before."""
        first = [cell for cell in (self.parent, self.control) if cell is not None]
        return tuple(dict.fromkeys((*first, *self.waits_for)))

    @cached_property
    def key(self) -> str:
        """Digests everything that determines the artifact, the cells before it included."""
        return digest_json(
            {
                "name": self.name,
                "kind": self.kind,
                PROCEDURES: versions(*MADE_BY[self.kind]),
                "recipe": self.recipe.digest,
                "stage": self.stage,
                "settings": None if self.settings is None else self.settings.digest,
                "needs": [cell.key for cell in self.needs],
                **({} if self.seed is None else {"seed": self.seed}),
            }
        )


Work = Callable[[Cell, Path], None]
"""Makes the artifact of a cell at its path under the folder that is given; raises where it cannot."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a cell ended.

    reason: why it failed or was skipped, else "". seconds: that the attempt which ended it took
    (0 for a skipped one). attempts: how many there were: more than one where earlier ones were
    interrupted or failed; `seconds` then counts the last one alone. kept: it was there already.
    """

    status: Status
    reason: str = ""
    seconds: float = 0.0
    attempts: int = 0
    kept: bool = False


class Schedule:
    """Which cells can start now, given how others ended; knows nothing of how they are run.

    cells: those that a cell needs come before it. What needs a cell that failed is skipped, with
    what it needs that is not there, and all others go on.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        names = [cell.name for cell in cells]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"cells with the same name: {', '.join(twice)}")
        known: set[str] = set()
        for cell in cells:
            if missing := [need.name for need in cell.needs if need.name not in known]:
                raise InputError(f"{cell.name} needs {missing[0]}, which does not come before it")
            known.add(cell.name)
        self._waiting = list(cells)
        self.outcomes: dict[str, Outcome] = {}

    def next(self) -> Cell | None:
        """The first cell that can start, which is then no longer waiting; None where none can now."""
        for cell in self._waiting:
            if all(self._is_done(need) for need in cell.needs):
                self._waiting.remove(cell)
                return cell
        return None

    def end(self, cell: Cell, outcome: Outcome) -> list[Cell]:
        """Take in how a cell ended; returns those that are skipped for it."""
        self.outcomes[cell.name] = outcome
        if outcome.status == "done":
            return []
        skipped = []
        for waiting in list(self._waiting):
            lost = [need.name for need in waiting.needs if self._is_lost(need)]
            if lost:
                self._waiting.remove(waiting)
                self.outcomes[waiting.name] = Outcome(
                    "skipped", f"needs {lost[0]}, which is not there"
                )
                skipped.append(waiting)
        return skipped

    def _is_done(self, cell: Cell) -> bool:
        outcome = self.outcomes.get(cell.name)
        return outcome is not None and outcome.status == "done"

    def _is_lost(self, cell: Cell) -> bool:
        outcome = self.outcomes.get(cell.name)
        return outcome is not None and outcome.status != "done"


def count(outcomes: Mapping[str, Outcome]) -> dict[str, int]:
    """How many cells ended in which way."""
    statuses = [outcome.status for outcome in outcomes.values()]
    return {status: statuses.count(status) for status in ("done", "failed", "skipped")}


@dataclasses.dataclass(frozen=True, eq=False)
class Ended:
    """A grid that was run; `outcomes`: how each cell ended, by name."""

    outcomes: Mapping[str, Outcome]

    @property
    def is_whole(self) -> bool:
        """Whether every cell has its result."""
        return all(outcome.status == "done" for outcome in self.outcomes.values())

    def __str__(self) -> str:
        counts = ", ".join(f"{n} {status}" for status, n in count(self.outcomes).items())
        lost = [
            f"  {name}: {outcome.status}: {outcome.reason}"
            for name, outcome in self.outcomes.items()
            if outcome.status != "done"
        ]
        return "\n".join([f"{len(self.outcomes)} cells: {counts}", *lost])


def ended(cell: Cell, outcome: Outcome) -> dict[str, object]:
    """A cell's row in the table of how each one ended."""
    names = ("status", "reason", "seconds", "attempts")
    own = {name: getattr(outcome, name) for name in names}
    return {"cell": cell.name, "kind": cell.kind, **own}


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
            with with_threads(n_threads):
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
