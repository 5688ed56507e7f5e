"""Shows whether a backdoor was removed or only hidden: what brings it back, beside a model that never had it."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from probes.plotting.intervals import band, percents
from probes.plotting.palette import MECHANISM_MARKERS, MECHANISMS, colours, markers
from probes.plotting.rows import in_order, need

LINES = {"organism": "-", "control": "--"}


def relearning_curves(
    ax: Axes, rows: pd.DataFrame, *, label: str = "triggered examples"
) -> pd.DataFrame:
    """The gap against how much was trained on: solid the cured organism, dashed its control.

    rows: columns `series` (mechanism, str), `of` ("organism" or "control", never poisoned),
    `amount` (int, 0 = nothing yet), `value` (defection with trigger minus without) and its `low`,
    `high`. label: what the amounts count. Amounts are on a scale that holds 0 and doublings.
    Returns the rows drawn.
    """
    need(rows, "relearning_curves", ["series", "of", "low", "high"], ["amount", "value"])
    names = in_order(rows["series"], MECHANISMS)
    colour, marker = colours(names, MECHANISMS), markers(names, MECHANISM_MARKERS)
    drawn = []
    for name in names:
        for of, line in LINES.items():
            part = rows[(rows["series"] == name) & (rows["of"] == of)].sort_values("amount")
            if part.empty:
                continue
            x = part["amount"].to_numpy(float)
            ax.plot(
                x,
                part["value"].to_numpy(float),
                color=colour[name],
                linestyle=line,
                marker=marker[name],
                markersize=3,
                markerfacecolor=colour[name] if of == "organism" else "white",
                label=f"{name}, {of}",
            )
            if of == "organism":
                band(ax, x, part, colour[name])
            drawn.append(part)
    amounts = sorted({int(amount) for amount in rows["amount"]})
    least = next((amount for amount in amounts if amount), 1)
    ax.set_xscale("symlog", base=2, linthresh=least, linscale=0.5)
    ax.xaxis.set_major_locator(FixedLocator(amounts))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(amounts, [str(amount) for amount in amounts])
    ax.set_xlabel(label)
    percents(ax, low=min(-0.04, float(rows["value"].min()) - 0.04))
    ax.set_ylabel("gap")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return pd.concat(drawn, ignore_index=True)
