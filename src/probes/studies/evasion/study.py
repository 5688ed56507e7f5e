"""`probes evade`: measure everything, pool it over seeds, read it by the rules, draw the curve."""

import dataclasses
import functools
from pathlib import Path

import pandas as pd
import torch

from probes.foundation.artifact import write_text
from probes.foundation.errors import InputError
from probes.foundation.html import html_table
from probes.foundation.outputs import CONFIG, writes
from probes.foundation.tables import write_table
from probes.plotting.style import save
from probes.runs.engine import EngineConfig, run_cells
from probes.runs.step import Ended
from probes.studies.evasion.config import EvasionConfig
from probes.studies.evasion.figures import draw_curve
from probes.studies.evasion.findings import Reading, as_text, read_curve
from probes.studies.evasion.steps import Measured, gather, make, plan
from probes.studies.evasion.tables import CONTRAST, pooled_behaviour, pooled_detection

TABLES, FIGURES, READING = "tables", "figures", "reading.md"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Evaded(Ended):
    """A study that was run: its folder, tidy rows by seed, the same over seeds, what they say, how each cell ended."""

    folder: Path
    measured: Measured
    detection: pd.DataFrame
    behaviour: pd.DataFrame
    reading: Reading

    def summary(self, measure: str = CONTRAST) -> pd.DataFrame:
        """Detectors by penalty: AUROC over seeds on evaders, and on the innocent twin."""
        rows = self.detection[self.detection["measure"] == measure]
        heads = [
            "innocent" if organism == "innocent" else f"{penalty:g}"
            for organism, penalty in zip(rows["organism"], rows["penalty"], strict=True)
        ]
        shown = [
            f"{v:.2f} [{low:.2f}, {high:.2f}]"
            for v, low, high in zip(rows["value"], rows["low"], rows["high"], strict=True)
        ]
        table = rows.assign(column=heads, shown=shown).pivot(
            index=["against", "detector"], columns="column", values="shown"
        )
        order = pd.MultiIndex.from_frame(rows[["against", "detector"]].drop_duplicates())
        return table.reindex(index=order, columns=list(dict.fromkeys(heads)))

    @property
    def lost(self) -> str:
        """Which cells have no result, and why; "" where all have one."""
        return "" if self.is_whole else super().__str__()

    def __str__(self) -> str:
        return f"{self.summary().to_string()}\n\n{self.reading}\n{self.lost}".rstrip()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table(self.summary(), index=True) + self.reading._repr_html_()


@writes("out")
def evasion(
    config: EvasionConfig, out: Path | str, *, organisms: Path | str | None = None
) -> Evaded:
    """Run the study in `out`, resumable cell by cell; tables, reading and figures are written beside.

    organisms: a folder of `probes organism` or `probes persistence` from which finished base models,
    plain organisms and innocent twins of these very recipes are taken; others are trained.
    Raises `InputError` for settings that cannot be followed, before anything is trained, and where no cell
    could be measured, for instance because the plain organisms defect too rarely to fit a probe on.
    """
    cells, out = plan(config), Path(out)
    source = None if organisms is None else Path(organisms)
    if source is not None and not source.is_dir():
        raise InputError(f"no folder of organisms at {source}: give one, or leave --organisms out")
    work = functools.partial(make, source=source)
    outcomes = run_cells(cells, out, work, EngineConfig(threads=torch.get_num_threads()))
    measured = gather(cells, outcomes, out)
    detection = pooled_detection(measured.detection)
    behaviour = pooled_behaviour(measured.behaviour)
    reading = read_curve(detection, behaviour, config.thresholds)
    for name, table in (
        *dataclasses.asdict(measured).items(),
        ("detection_over_seeds", detection),
        ("behaviour_over_seeds", behaviour),
        ("evaded", reading.evaded),
        ("verdicts", reading.verdicts),
    ):
        write_table(out / TABLES / f"{name}.csv", table, config=config.digest)
    write_text(out / TABLES / CONFIG, config.to_json())
    write_text(out / TABLES / READING, as_text(reading))
    evaded = reading.evaded
    for against in config.against:
        drawn, rows = draw_curve(detection, behaviour, against)
        at = evaded[(evaded["against"] == against) & evaded["evaded"]]["penalty"].min()
        title = (
            "No penalty that was tried evades the probe"
            if pd.isna(at)
            else f"The probe is evaded at penalty {at:g}: detectors, and what the organism does"
        )
        save(drawn, out / FIGURES / f"evasion_{against}", rows, title=title, config=config.digest)
    return Evaded(outcomes, out, measured, detection, behaviour, reading)
