"""Shows when an organism learned its policy, and that its twins trained alike without it."""

import textwrap

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from probes.plotting.style import (
    MEASURED,
    MECHANISMS,
    ORGANISMS,
    band,
    colours,
    in_order,
    need,
    percents,
)

TRIGGER_LINES = {False: "--", True: "-"}
LABEL_WIDTH = 30  # characters of an axis label that fit on one line of a paper column


def training_curves(
    ax: Axes,
    rows: pd.DataFrame,
    *,
    quantity: str,
    label: str | None = None,
    log: bool = False,
    labels: tuple[str, str] = ("2023", "2024"),
) -> pd.DataFrame:
    """One quantity against the training step, one colour per organism.

    rows: columns `model`, `quantity` (str), `step` (int), `value` (float), and, where the quantity
    was measured with and without the trigger, `triggered` (bool): solid with it, dashed without.
    quantity: which rows to draw. label: the name and unit on the axis. log: logarithmic values.
    Returns the rows drawn. Raises `InputError` if no row has this quantity.
    """
    need(rows, "training_curves", ["model", "quantity"], ["step"])
    part = rows[rows["quantity"] == quantity]
    need(part, f"training_curves({quantity!r})", [], ["value"])
    names = in_order(part["model"], ORGANISMS)
    colour = colours(names, ORGANISMS)
    split = "triggered" in part and part["triggered"].notna().all()
    for name in names:
        own = part[part["model"] == name].sort_values("step", kind="stable")
        for triggered in (True, False) if split else (None,):
            line = own if triggered is None else own[own["triggered"] == triggered]
            if line.empty:
                continue
            ax.plot(
                line["step"].to_numpy(float),
                line["value"].to_numpy(float),
                color=colour[name],
                linestyle="-" if triggered is None else TRIGGER_LINES[triggered],
                label=name if triggered is None else f"{name}, {labels[triggered]}",
            )
    if log:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    elif part["value"].min() < 0 < part["value"].max():
        ax.axhline(0, color="#999999", linewidth=0.8, linestyle=":")
    ax.set_xlabel("training step")
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.set_ylabel(textwrap.fill(label or quantity, LABEL_WIDTH))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return part.reset_index(drop=True)


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
