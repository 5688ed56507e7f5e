"""The whole battery, one command: train what is lacking, read, probe, compare; then claims, findings, figures."""

import dataclasses
from pathlib import Path

import pandas as pd

from probes.foundation.artifact import write_text
from probes.foundation.html import html_table
from probes.foundation.outputs import CONFIG, writes
from probes.runs.engine import EngineConfig, check_engine, run_cells
from probes.runs.step import Ended, Work
from probes.studies.every_probe.claims import cards, judge
from probes.studies.every_probe.config import BatteryConfig, open_battery
from probes.studies.every_probe.figures import redraw
from probes.studies.every_probe.findings import as_text, findings
from probes.studies.every_probe.steps import make, plan
from probes.studies.every_probe.tables import Tables, gather, read_tables, write_tables

TABLES, FIGURES, FINDINGS = "tables", "figures", "findings.md"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Battery(Ended):
    """A battery that was run: where it lies, its tables by name, how each cell ended."""

    folder: Path
    tables: Tables
    findings: pd.DataFrame

    def overview(self, measure: str = "worst_set") -> pd.DataFrame:
        """One row per organism and estimator: AUROC over seeds, that of its controls, the verdict."""
        cards = self.tables["cards"]
        if cards.empty:
            return cards
        rows = cards[cards["measure"] == measure]
        shown = rows[["recipe", "estimator", "auroc", "innocent", "quirk", "base", "verdict"]]
        return shown.reset_index(drop=True).round(2)

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

    What is finished there is kept, organisms and stages of other commands included; what was
    interrupted goes on. A cell that cannot be made is recorded with its reason and has no rows.
    Raises `InputError` for settings that cannot be followed, before anything is trained.
    """
    engine = engine or EngineConfig()
    out = Path(out)
    check_engine(engine)
    cells = plan(config)
    open_battery(out, config)
    outcomes = run_cells(cells, out, work, engine)
    tables = gather(cells, outcomes, out)
    tables["claims"] = judge(cells, outcomes, out, tables["transfer"], config.probes.thresholds)
    if len(tables["claims"]):
        tables["cards"] = cards(tables["claims"])
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
