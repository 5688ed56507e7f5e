"""A grid as cells: each makes one artifact, from the artifacts of those that it needs."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from probes.foundation.artifact import PROCEDURES
from probes.foundation.config import Config
from probes.foundation.digest import digest_json
from probes.foundation.errors import InputError
from probes.foundation.procedures import versions
from probes.organisms.organism import OrganismRecipe

Kind = Literal[
    "base", "organism", "stage", "measure", "reversal",
    "collected", "probed", "staged", "transferred",
]  # fmt: skip
"""The first five are of the persistence grid, the others of the battery, which has the first three too."""
SAMPLED = ("sampling", "judging")
MADE_BY: dict[Kind, tuple[str, ...]] = {
    "base": ("training",),
    "organism": ("training", *SAMPLED),
    "stage": ("safety training", *SAMPLED),
    "measure": SAMPLED,
    "reversal": ("reversal", *SAMPLED),
    "collected": ("activations", *SAMPLED),
    "probed": ("detection", "contrast probes", "activations", "surprise"),
    "staged": ("detection", "transfer", "activations", *SAMPLED),
    "transferred": ("detection", "transfer", "activations"),
}
"""The procedures whose versions are in the key of a cell."""
Status = Literal["done", "failed", "skipped"]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One unit of work.

    name: also the path of its artifact under the grid's folder. stage: of the checkpoint that it
    makes, measures or reverses; "installed" before any safety training. parent: the cell whose
    checkpoint it starts from, or reads. control: for a reversal, the cell of the checkpoint that
    was never poisoned. waits_for: further cells that it needs. settings: of the stage.
    """

    name: str
    kind: Kind
    recipe: OrganismRecipe
    stage: str = "installed"
    parent: "Cell | None" = None
    control: "Cell | None" = None
    waits_for: tuple["Cell", ...] = ()
    settings: Config | None = None

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

    @property
    def n_waiting(self) -> int:
        return len(self._waiting)

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
