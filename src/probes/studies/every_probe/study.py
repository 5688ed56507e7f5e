"""The whole battery, one command: train what is lacking, read, probe, compare; then claims, findings, figures."""

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from probes.foundation.artifact import write_text
from probes.foundation.html import html_table
from probes.foundation.outputs import CONFIG, writes
from probes.foundation.terminal import one_line
from probes.runs.engine import EngineConfig, check_engine, run_cells
from probes.runs.step import Cell, Outcome, Work, count
from probes.studies.every_probe.claims import cards, judge
from probes.studies.every_probe.config import BatteryConfig, open_battery
from probes.studies.every_probe.figures import redraw
from probes.studies.every_probe.findings import as_text, findings
from probes.studies.every_probe.steps import make, plan
from probes.studies.every_probe.tables import Tables, gather, read_tables, write_tables

TABLES, FIGURES, FINDINGS = "tables", "figures", "findings.md"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Battery:
    """A battery that was run: where it lies, its tables by name, how each cell ended."""

    folder: Path
    tables: Tables
    findings: pd.DataFrame
    outcomes: Mapping[str, Outcome]

    @property
    def is_whole(self) -> bool:
        """Whether every cell has its result."""
        return all(outcome.status == "done" for outcome in self.outcomes.values())

    def overview(self, measure: str = "worst_set") -> pd.DataFrame:
        """One row per organism and estimator: AUROC over seeds, that of its controls, the verdict."""
        cards = self.tables["cards"]
        if cards.empty:
            return cards
        rows = cards[cards["measure"] == measure]
        shown = rows[["recipe", "estimator", "auroc", "innocent", "quirk", "base", "verdict"]]
        return shown.reset_index(drop=True).round(2)

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {status}" for status, n in count(self.outcomes).items())
        lost = [
            f"  {name}: {outcome.status}: {outcome.reason}"
            for name, outcome in self.outcomes.items()
            if outcome.status != "done"
        ]
        return "\n".join([f"{len(self.outcomes)} cells: {counts}", *lost])

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
    outcomes = run_cells(cells, out, work, engine, _tell)
    tables = gather(cells, outcomes, out)
    tables["claims"] = judge(cells, outcomes, out, tables["transfer"], config.probes.thresholds)
    if len(tables["claims"]):
        tables["cards"] = cards(tables["claims"])
    write_tables(out / TABLES, tables)
    write_text(out / TABLES / CONFIG, config.to_json())
    if tables["claims"].empty:
        return Battery(out, tables, pd.DataFrame(), outcomes)
    # What is concluded and drawn rests on the tables as they were saved.
    saved = read_tables(out / TABLES)
    found = findings(saved)
    write_tables(out / TABLES, {"findings": found})
    write_text(out / TABLES / FINDINGS, as_text(found))
    if draw:
        redraw(out / TABLES, out / FIGURES)
    return Battery(out, saved, found, outcomes)


def _tell(cell: Cell, outcome: Outcome) -> None:
    """A line on standard error for each cell that took time or has no result."""
    if outcome.kept:
        return
    said = f"{outcome.seconds:.0f} s" if outcome.status == "done" else outcome.reason
    tqdm.write(one_line(f"{outcome.status}: {cell.name} ({said})"), file=sys.stderr)
