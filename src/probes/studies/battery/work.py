"""What each kind of cell of the battery does; training and safety training as in the persistence grid."""

from pathlib import Path

from probes.foundation.errors import StageError
from probes.studies.battery.collecting import collected
from probes.studies.battery.probed import probed
from probes.studies.battery.staged import staged
from probes.studies.battery.transfers import transferred
from probes.studies.persistence import work
from probes.studies.persistence.cells import Cell


def make(cell: Cell, out: Path) -> None:
    """Make the artifact of a cell; errors as the stages raise them."""
    match cell.kind:
        case "base" | "organism" | "stage":
            work.make(cell, out)
        case "collected":
            collected(cell, out)
        case "probed":
            probed(cell, out)
        case "staged":
            staged(cell, out)
        case "transferred":
            transferred(cell, out)
        case other:
            raise StageError(f"{cell.name} is of the kind {other!r}, which a battery does not have")
