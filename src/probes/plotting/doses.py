"""Shows a measure against an amount: the dose of a direction, or the penalty on a probe."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from probes.plotting.style import (
    LINES,
    MEASURED,
    band,
    colours,
    in_order,
    markers,
    need,
    percents,
    whiskers,
)

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


DETECTORS = {
    "same probe": "#D55E00",
    "refitted, same site": "#0072B2",
    "refitted, best site": "#009E73",
    "random directions, 95%": "#7f7f7f",
    "MLP refitted, same site": "#CC79A7",
    "attention over tokens, same site": "#000000",
    "distance to benign, same site": "#56B4E9",
    "same probe on every token": "#E69F00",
    "same probe on every token and answer": "#B8A900",
    "asking outright": "#8C564B",
    "generic, the best of them": "#7B4FB5",
}
DETECTOR_MARKERS = dict(zip(DETECTORS, "Ds^ovPX<>*p", strict=True))
FOREMOST = 3
"""Detectors that are drawn in full lines, the others broken and thinner."""


def over_penalty(
    ax: Axes, rows: pd.DataFrame, *, label: str = "AUROC", rate: bool = False
) -> pd.DataFrame:
    """One line per series over the penalty, whose axis holds 0 and powers of ten; the foremost with a band.

    rows: columns `series` (detector or cue, str), `penalty` (at least 0), `value`, `low`, `high`.
    rate: percents in place of AUROCs, without the line of chance. Returns the rows drawn.
    """
    need(rows, "over_penalty", ["series", "low", "high"], ["penalty", "value"])
    known = MEASURED if rate else DETECTORS
    names = in_order(rows["series"], known)
    colour, marker = colours(names, known), markers(names, {} if rate else DETECTOR_MARKERS)
    drawn = []
    for i, name in enumerate(names):
        part = rows[rows["series"] == name].sort_values("penalty")
        x = part["penalty"].to_numpy(float)
        full = rate or name in tuple(known)[:FOREMOST]
        ax.plot(
            x,
            part["value"].to_numpy(float),
            color=colour[name],
            marker=marker[name],
            markersize=3,
            linestyle="-" if full else LINES[1 + i % (len(LINES) - 1)],
            linewidth=1.3 if full else 0.9,
            label=name,
        )
        if full:
            band(ax, x, part, colour[name])
        drawn.append(part)
    amounts = sorted({float(amount) for amount in rows["penalty"]})
    least = next((amount for amount in amounts if amount > 0), 1.0)
    ax.set_xscale("symlog", base=10, linthresh=least, linscale=0.5)
    ax.xaxis.set_major_locator(FixedLocator(amounts))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(amounts, [f"{amount:g}" for amount in amounts], rotation=45)
    ax.set_xlabel("penalty")
    if rate:
        percents(ax)
    else:
        ax.axhline(0.5, color="#999999", linewidth=0.8, linestyle=":", zorder=1)
        ax.set_ylim(min(-0.03, float(rows["low"].min())), 1.03)
    ax.set_ylabel(label)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return pd.concat(drawn, ignore_index=True)
