"""Shows how a stage of safety training works, step by step: what falls, what stays, and at what price."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from probes.plotting.intervals import band, percents
from probes.plotting.palette import MEASURED, MECHANISMS, colours
from probes.plotting.rows import in_order, need

KNOWN = MEASURED | MECHANISMS


def stage_curves(
    ax: Axes, rows: pd.DataFrame, *, label: str = "defection", rates: bool = True
) -> pd.DataFrame:
    """One line per series against the step of training, with its interval as a band.

    rows: columns `series` (str), `step` (int), `value`, and its `low`, `high` (may be empty).
    label: what is measured. rates: whether values are rates, drawn as percentages from 0 to 100.
    Returns the rows drawn.
    """
    need(rows, "stage_curves", ["series", "low", "high"], ["step", "value"])
    names = in_order(rows["series"], KNOWN)
    colour = colours(names, KNOWN)
    drawn = []
    for name in names:
        part = rows[rows["series"] == name].sort_values("step", kind="stable")
        x = part["step"].to_numpy(float)
        ax.plot(x, part["value"].to_numpy(float), color=colour[name], label=name)
        band(ax, x, part, colour[name])
        drawn.append(part)
    ax.set_xlabel("training step")
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.set_ylabel(label)
    if rates:
        percents(ax)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return pd.concat(drawn, ignore_index=True)
