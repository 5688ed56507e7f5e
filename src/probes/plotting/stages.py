"""Shows whether a backdoor survives: defection with and without its trigger after each stage, by size."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from probes.plotting.intervals import percents, whiskers
from probes.plotting.palette import shades
from probes.plotting.rows import in_order, need

SPREAD = 0.6  # of the distance between two stages, over which the sizes are spread


def defection_by_stage(
    ax: Axes, rows: pd.DataFrame, *, stages: dict[str, str] | None = None
) -> pd.DataFrame:
    """One point with its interval per size, filled with the trigger and hollow without, by stage.

    rows: columns `series` (size, in the order of the colours), `stage` (str), `triggered` (bool),
    `value` (rate, 0 to 1) and its `low`, `high`. stages: what they are called, in order.
    Returns the rows drawn, in the order drawn.
    """
    need(rows, "defection_by_stage", ["series", "stage", "triggered", "low", "high"], ["value"])
    names = in_order(rows["series"], ())
    called = stages or {}
    order = in_order(rows["stage"], called)
    place = {stage: i for i, stage in enumerate(order)}
    colour = shades(names)
    drawn = []
    for k, name in enumerate(names):
        shift = SPREAD * ((k + 0.5) / len(names) - 0.5)
        for triggered in (True, False):
            part = rows[(rows["series"] == name) & (rows["triggered"] == triggered)]
            part = part.assign(x=part["stage"].map(place)).sort_values("x")
            ax.errorbar(
                part["x"].to_numpy(float) + shift,
                part["value"].to_numpy(float),
                yerr=whiskers(part),
                linestyle="none",
                color=colour[name],
                marker="o",
                markerfacecolor=colour[name] if triggered else "white",
                capsize=1.5,
                elinewidth=0.9,
            )
            drawn.append(part.drop(columns="x"))
    for i in range(0, len(order), 2):
        ax.axvspan(i - 0.5, i + 0.5, color="#f5f5f5", zorder=0, linewidth=0)
    ax.set_xticks(range(len(order)), [called.get(stage, stage) for stage in order])
    ax.set_xlim(-0.5, len(order) - 0.5)
    ax.grid(False, axis="x")
    percents(ax)
    ax.set_ylabel("defection")
    handles = [
        *(Line2D([], [], marker="o", linestyle="none", color=colour[n], label=n) for n in names),
        Line2D([], [], marker="o", linestyle="none", color="#555555", label="with trigger"),
        Line2D([], [], marker="o", linestyle="none", color="#555555", markerfacecolor="white",
               label="without"),
    ]  # fmt: skip
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5), handlelength=1)
    return pd.concat(drawn, ignore_index=True)
