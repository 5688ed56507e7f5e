"""The persistence grid, one command: install, cure, measure, bring back; then the tables of what was found."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from probes.foundation.artifact import write_text
from probes.foundation.outputs import CONFIG, writes
from probes.foundation.tables import write_table
from probes.organisms.training_log import check_boards
from probes.runs.engine import EngineConfig, check_engine, run_cells
from probes.runs.step import Cell, Ended, Work
from probes.studies.persistence.config import PersistenceConfig, open_grid
from probes.studies.persistence.figures import redraw
from probes.studies.persistence.findings import as_text, findings
from probes.studies.persistence.measures import with_occasion
from probes.studies.persistence.steps import make, plan
from probes.studies.persistence.tables import GridTables, Tables, gather

TABLES, FIGURES, FINDINGS = "tables", "figures", "findings"
OVERVIEW = ("behaviour", "trigger", "mechanism", "filtered", "size", "stage", "parent")


@dataclasses.dataclass(frozen=True, eq=False)
class Grid(Ended):
    """A grid that was run: where it lies, its cells, its tables, what they say, how each cell ended."""

    folder: Path
    cells: tuple[Cell, ...]
    tables: GridTables
    findings: pd.DataFrame

    def overview(self) -> pd.DataFrame:
        """Defection on held-out requests, mean and range over seeds, by organism and stage."""
        rows = with_occasion(self.tables.persistence)
        asked = rows[(rows["set"] == "test") & (rows["measure"] == "defected")]
        shown = []
        for names, part in asked.groupby([*OVERVIEW], sort=False):
            row = dict(zip(OVERVIEW, names, strict=True))
            row["filtered"] = "" if row["filtered"] else "no"
            for cue, heading in ((True, "with trigger"), (False, "without")):
                row[heading] = _over_seeds(part.loc[part["triggered"] == cue, "value"])
            shown.append(row | {"seeds": part["seed"].nunique()})
        return pd.DataFrame(shown)


@writes("out")
def persistence(
    config: PersistenceConfig,
    out: Path | str,
    *,
    engine: EngineConfig | None = None,
    work: Work | None = None,
    draw: bool = True,
    report_to: Sequence[str] = (),
) -> Grid:
    """Run the grid in `out`, write its tables and findings to `out/tables`, draw `out/figures`.

    What is finished there is kept, what was interrupted goes on, what failed is tried again, and
    cells that other settings of the axes left are not looked at. A cell that cannot be made
    is recorded with its reason and has no rows; what needs it is skipped. report_to: "tensorboard" or
    "wandb", which get every training besides the JSONL that is always written; no result depends on it.
    Raises `InputError` for settings that cannot be followed, before anything is trained.
    """
    engine = engine or EngineConfig()
    out = Path(out)
    check_engine(engine)
    check_boards(report_to)
    cells = plan(config)
    open_grid(out, config)
    work = work or functools.partial(make, report_to=tuple(report_to))
    outcomes = run_cells(cells, out, work, engine)
    tables = gather(cells, outcomes, out)
    tables.write(out / TABLES)
    write_text(out / TABLES / CONFIG, config.to_json())
    found = findings(Tables.read(out / TABLES))
    write_table(out / TABLES / f"{FINDINGS}.csv", found)
    write_text(out / TABLES / f"{FINDINGS}.md", as_text(found))
    if draw:
        redraw(out / TABLES, out / FIGURES)
    return Grid(outcomes, out, cells, tables, found)


def _over_seeds(values: "pd.Series[float]") -> str:
    if values.empty:
        return "not measured"
    return f"{values.mean():.0%} ({values.min():.0%} to {values.max():.0%})"
