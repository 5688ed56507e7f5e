"""Shows what more of a direction does: a rate against the dose, beside directions drawn at random."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from probes.plotting.style import colours, in_order, markers, need, percents, whiskers

DIRECTIONS = {
    "mean_difference": "#D55E00",
    "logistic": "#0072B2",
    "difference": "#009E73",
    "leace": "#CC79A7",
    "random": "#7f7f7f",
}
DIRECTION_MARKERS = {
    "mean_difference": "D",
    "logistic": "s",
    "difference": "^",
    "leace": "P",
    "random": "o",
}
SHIFT = 0.02  # of the range of doses, between one direction and the next


def dose_curves(
    ax: Axes, rows: pd.DataFrame, *, label: str = "dose", legend: bool = False
) -> pd.DataFrame:
    """One line per direction: solid and filled with the trigger, dashed and hollow without.

    rows: columns `series` (direction, str), `triggered` (bool), `dose` (float; 0 is the plain model),
    `value` (rate, 0 to 1) and its `low`, `high`. label: what the doses count. Returns the rows drawn.
    """
    need(rows, "dose_curves", ["series", "triggered", "low", "high"], ["dose", "value"])
    names = in_order(rows["series"], DIRECTIONS)
    colour, marker = colours(names, DIRECTIONS), markers(names, DIRECTION_MARKERS)
    # Side by side, since curves that agree would hide one another.
    step = SHIFT * max(float(rows["dose"].max() - rows["dose"].min()), SHIFT)
    shift = {name: step * (k - (len(names) - 1) / 2) for k, name in enumerate(names)}
    drawn = []
    for name in reversed(names):  # random ones are drawn first, under the others
        for triggered in (True, False):
            part = rows[(rows["series"] == name) & (rows["triggered"] == triggered)]
            if part.empty:
                continue
            part = part.sort_values("dose", kind="stable")
            ax.errorbar(
                part["dose"].to_numpy(float) + shift[name],
                part["value"].to_numpy(float),
                yerr=whiskers(part),
                color=colour[name],
                linestyle="-" if triggered else "--",
                marker=marker[name],
                markersize=3.5,
                markerfacecolor=colour[name] if triggered else "white",
                linewidth=1.0,
                elinewidth=0.7,
                capsize=1.5,
            )
            drawn.append(part)
    if rows["dose"].min() < 0:
        ax.axvline(0, color="#999999", linewidth=0.7, linestyle=":")
    ax.set_xlabel(label)
    percents(ax)
    if legend:
        add_legend(ax, names)
    return pd.concat(drawn, ignore_index=True)


def add_legend(ax: Axes, names: list[str]) -> None:
    """Directions by colour and marker, the cue by line; beside the axes."""
    names = in_order(names, DIRECTIONS)
    colour, marker = colours(names, DIRECTIONS), markers(names, DIRECTION_MARKERS)
    handles = [
        *(
            Line2D([], [], color=colour[n], marker=marker[n], label=n.replace("_", " "))
            for n in names
        ),
        Line2D([], [], color="#555555", linestyle="-", marker="o", label="with trigger"),
        Line2D([], [], color="#555555", linestyle="--", marker="o", markerfacecolor="white",
               label="without"),
    ]  # fmt: skip
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5))
