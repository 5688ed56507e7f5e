"""Shows from which layer on the answer is there: one measure of a lens, by depth and run."""

import pandas as pd
from matplotlib.axes import Axes

from probes.plotting.layers import name_layers
from probes.plotting.palette import colours
from probes.plotting.rows import in_order, need

RUNS = {"clean": "#E69F00", "corrupted": "#56B4E9", "clean - corrupted": "#D55E00"}


def lens_by_depth(
    ax: Axes, rows: pd.DataFrame, *, measure: str = "parting", label: str | None = None
) -> pd.DataFrame:
    """One line per run against depth, with a band where there are intervals.

    rows: columns `run`, `measure` (str), `depth` (int; 0 = embeddings), `mean`, and `low`, `high`
    where there are intervals. measure: which to draw. label: the axis, name and unit.
    Returns the rows drawn. Raises `InputError` where there is no such measure.
    """
    need(rows, "lens_by_depth", ["run", "measure"], ["depth", "mean"])
    part = rows[rows["measure"] == measure]
    need(part, f"lens_by_depth({measure!r})", ["run"], ["depth", "mean"])
    names = in_order(part["run"], RUNS)
    colour = colours(names, RUNS)
    for name in names:
        line = part[part["run"] == name].sort_values("depth")
        depth = line["depth"].to_numpy(float)
        ax.plot(depth, line["mean"].to_numpy(float), color=colour[name], marker="o", label=name)
        if {"low", "high"} <= set(line.columns):
            ax.fill_between(
                depth, line["low"].to_numpy(float), line["high"].to_numpy(float),
                color=colour[name], alpha=0.15, linewidth=0,
            )  # fmt: skip
    ax.axhline(0, color="#999999", linewidth=0.8, linestyle=":")
    name_layers(ax, sorted(int(depth) for depth in part["depth"].unique()))
    ax.set_ylabel(label or measure)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(names))
    return part.reset_index(drop=True)
