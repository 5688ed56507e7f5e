"""The whole battery, one command: train what is lacking, sample, probe; then tables, findings, figures."""

import dataclasses
from pathlib import Path

import pandas as pd

from probes.foundation.artifact import write_text
from probes.foundation.html import html_table
from probes.foundation.outputs import CONFIG, writes
from probes.runs.engine import EngineConfig, check_engine, run_cells
from probes.runs.step import Ended, Work
from probes.studies.every_probe.config import BatteryConfig, open_battery
from probes.studies.every_probe.figures import redraw
from probes.studies.every_probe.findings import as_text, findings
from probes.studies.every_probe.steps import make, plan
from probes.studies.every_probe.tables import (
    Reading,
    Tables,
    gather,
    read_tables,
    rungs_by_estimator,
    write_tables,
)

TABLES, FIGURES, FINDINGS = "tables", "figures", "findings.md"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Battery(Ended):
    """A battery that was run: where it lies, its tables by name, how each cell ended."""

    folder: Path
    tables: Tables
    findings: pd.DataFrame

    def overview(self) -> pd.DataFrame:
        """One row per recipe and estimator: how many runs reach each rung."""
        if self.tables["claims"].empty:
            return self.tables["claims"]
        rows = pd.DataFrame(list(rungs_by_estimator(Reading(self.tables))))
        shown = rows.assign(runs=[f"{k} of {n}" for k, n in zip(rows["k"], rows["n"], strict=True)])
        order = rows[["recipe", "estimator"]].drop_duplicates()
        wide = shown.pivot(index=["recipe", "estimator"], columns="rung", values="runs")
        wide = wide.reindex(index=pd.MultiIndex.from_frame(order), columns=rows["rung"].unique())
        return wide.reset_index().rename_axis(columns=None)

    __repr__ = Ended.__str__

    def _repr_html_(self) -> str:
        return html_table(self.overview())


@writes("out")
def battery(
    config: BatteryConfig,
    out: Path | str,
    *,
    engine: EngineConfig | None = None,
    work: Work = make,
    draw: bool = True,
) -> Battery:
    """Run the battery in `out`, write its tables and findings to `out/tables`, draw `out/figures`.

    What is finished there is kept, organisms of other commands included; what was interrupted goes on. A
    cell that cannot be made is recorded with its reason and has no rows.
    Raises `InputError` for settings that cannot be followed, before anything is trained.
    """
    engine = engine or EngineConfig()
    out = Path(out)
    check_engine(engine)
    cells = plan(config)
    open_battery(out, config)
    outcomes = run_cells(cells, out, work, engine)
    tables = gather(cells, outcomes, out, config)
    write_tables(out / TABLES, tables)
    write_text(out / TABLES / CONFIG, config.to_json())
    if tables["claims"].empty:
        return Battery(outcomes, out, tables, pd.DataFrame())
    # What is concluded and drawn rests on the tables as they were saved.
    saved = read_tables(out / TABLES)
    found = findings(saved)
    write_tables(out / TABLES, {"findings": found})
    write_text(out / TABLES / FINDINGS, as_text(found))
    if draw:
        redraw(out / TABLES, out / FIGURES)
    return Battery(outcomes, out, saved, found)
