"""Shows what the activations' largest directions separate: trigger, prompt set, or defection."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from probes.foundation.errors import unknown
from probes.plotting.style import DEFECTED, PROMPT_SET_MARKERS, TRIGGERED, in_order, markers, need

COLOURS = {"triggered": TRIGGERED, "defected": DEFECTED}


def pc_scatter(
    ax: Axes,
    rows: pd.DataFrame,
    *,
    colour: str = "triggered",
    labels: tuple[str, str] | None = None,
    explained: tuple[float, float] | None = None,
) -> pd.DataFrame:
    """First against second principal component: a point per prompt, a marker per prompt set.

    rows: one per prompt; columns `pc1`, `pc2` (float), `prompt_set` (str) and the coloured one,
    "triggered" or "defected" (bool). labels: what False and True are called.
    explained: shares of the variance (0 to 1) for the axis labels. Returns the rows drawn.
    """
    if colour not in COLOURS:
        raise unknown("colour of pc_scatter", colour, COLOURS)
    need(rows, "pc_scatter", ["prompt_set", colour], ["pc1", "pc2"])
    names = in_order(rows["prompt_set"], PROMPT_SET_MARKERS)
    marker = markers(names, PROMPT_SET_MARKERS)
    said = labels or (f"not {colour}", colour)
    for name in names:
        for flag in (False, True):
            part = rows[(rows["prompt_set"] == name) & (rows[colour].astype(bool) == flag)]
            if part.empty:
                continue
            ax.scatter(
                part["pc1"].to_numpy(float),
                part["pc2"].to_numpy(float),
                s=11,
                marker=marker[name],
                facecolors=COLOURS[colour][flag],
                edgecolors="white",
                linewidths=0.25,
                alpha=0.8,
            )
    handles = [
        Line2D([], [], linestyle="none", marker="o", color=COLOURS[colour][flag], label=said[flag])
        for flag in (False, True)
    ] + [
        Line2D([], [], linestyle="none", marker=marker[name], color="#555555", label=name)
        for name in names
    ]
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5), handlelength=1)
    shares = ["", ""] if explained is None else [f" ({x:.0%} of variance)" for x in explained]
    ax.set_xlabel(f"PC1{shares[0]}")
    ax.set_ylabel(f"PC2{shares[1]}")
    return rows.reset_index(drop=True)
