"""Shows which sites and tokens carry an effect, how sets of parts grow, and whether two measures agree."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes.foundation.errors import InputError, unknown
from probes.plotting.style import SPARE, SPARE_MARKERS, colours, in_order, markers, need

UNITS = {
    "normalised": "share of the clean–corrupted\ndifference restored",
    "mean": "effect on the log-probability\ndifference [nats]",
}

UPRIGHT = 2  # characters of a token that fit under a cell without turning


def patch_heatmap(ax: Axes, rows: pd.DataFrame, *, value: str = "normalised") -> pd.DataFrame:
    """The patching grid: sites upward, positions as tokens, colours centred on no effect.

    rows: one per cell; columns `site` (str), `layer` (int, order from the bottom up), `column`
    (int), `label` (token text) and the plotted one, "normalised" (share restored; 0 = none,
    1 = all) or "mean" (nats).
    Returns `site, layer, column, label` and `value`, sorted from the bottom left.
    Raises `InputError` where a cell is missing or there twice.
    """
    if value not in UNITS:
        raise unknown("heatmap value", value, UNITS)
    need(rows, "patch_heatmap", ["site", "label"], ["layer", "column", value])
    cells = rows.sort_values(["layer", "site", "column"], kind="stable")
    sites = list(dict.fromkeys(cells["site"]))
    labels = cells.drop_duplicates("column").sort_values("column")["label"].tolist()
    n_cells = len(cells.drop_duplicates(["site", "column"]))
    if len(cells) != n_cells or n_cells != len(sites) * len(labels):
        raise InputError(
            f"patch_heatmap needs each cell of {len(sites)} sites x {len(labels)} columns exactly "
            f"once and was given {len(cells)} rows for {n_cells} cells"
        )
    effects = cells[value].to_numpy(float).reshape(len(sites), len(labels))
    limit = max(float(np.abs(effects).max()), 1e-12)
    image = ax.imshow(
        effects, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", origin="lower",
        interpolation="nearest",
    )  # fmt: skip
    turned = max(len(str(label)) for label in labels) > UPRIGHT
    ax.set_xticks(range(len(labels)), labels, rotation=90 if turned else 0)
    ax.set_yticks(range(len(sites)), sites)
    ax.tick_params(length=2)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("patched position")
    bar = ax.figure.colorbar(image, ax=ax, pad=0.015, fraction=0.03, aspect=14)
    bar.set_label(UNITS[value])
    bar.outline.set_visible(False)
    return cells[["site", "layer", "column", "label", value]].reset_index(drop=True)


ALPHA = 0.05
ABSENT = "#e4e4e4"


def share_grid(
    ax: Axes,
    rows: pd.DataFrame,
    *,
    up: str,
    across: str,
    value: str = "share",
    order: tuple[str, ...] = (),
    limit: float = 1.0,
) -> Any:
    """Cells coloured by their share, blue below zero and red above; a dot where corrected p is at most 0.05.

    rows: one per cell, from the bottom up in their order: `up` and `across` (names of the axes'
    columns), `value` (share of an effect, 1 = all), and perhaps `p`. order: of the columns; others
    follow as they appear. limit: the share with the full colour. Cells that are not there are grey.
    Returns the image, for `share_bar`.
    """
    need(rows, "share_grid", [up, across], [value])
    sites = in_order(rows[up].astype(str), ())
    names = in_order(rows[across].astype(str), order)
    values = np.full((len(sites), len(names)), np.nan)
    for row in rows.to_dict("records"):
        at = sites.index(str(row[up])), names.index(str(row[across]))
        values[at] = row[value]
        if row.get("p", 1.0) <= ALPHA:
            dark = abs(row[value]) > 0.6 * limit
            ax.plot(at[1], at[0], ".", color="white" if dark else "#222222", markersize=2.6)
    ax.set_facecolor(ABSENT)
    image = ax.imshow(
        np.ma.masked_invalid(values), cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto",
        origin="lower", interpolation="nearest",
    )  # fmt: skip
    ax.set_xticks(range(len(names)), names, rotation=90)
    ax.set_yticks(range(len(sites)), sites)
    ax.tick_params(length=2)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    return image


def share_bar(figure: Figure, image: Any, axes: Any, label: str) -> None:
    """One colour bar for all panels."""
    bar = figure.colorbar(image, ax=axes, pad=0.01, fraction=0.02, aspect=25)
    bar.set_label(label)
    bar.outline.set_visible(False)


ALONG = {"whole": "#000000", "probe": "#D55E00", "random": "#7f7f7f"}


def two_measures(
    ax: Axes, rows: pd.DataFrame, *, x: str, y: str, series: str, order: Sequence[str] = ()
) -> pd.DataFrame:
    """One point per place, a colour and marker per series. rows: `x`, `y` (finite), `series`."""
    need(rows, "two_measures", [series], [x, y])
    names = in_order(rows[series], order)
    shade, shape = colours(names, {}), markers(names, {})
    if len(names) > len(SPARE):
        shade |= dict(zip(names[len(SPARE) :], ("#0072B2", "#009E73", "#D55E00"), strict=False))
        shape |= dict(zip(names[len(SPARE_MARKERS) :], ("o", "s", "^"), strict=False))
    for name in names:
        part = rows[rows[series] == name]
        ax.plot(
            part[x], part[y], linestyle="none", marker=shape[name], color=shade[name], label=name,
            markersize=3.5, alpha=0.8, markeredgewidth=0,
        )  # fmt: skip
    ax.legend(loc="best", fontsize=6, handletextpad=0.2)
    return rows


def by_block(ax: Axes, rows: pd.DataFrame) -> pd.DataFrame:
    """Shares by site from the bottom up, one line per kind of value, bands from `low` to `high`.

    rows: `along` ("whole", "probe", "random"), `site` (str), `share`, `low`, `high` (may be empty).
    """
    need(rows, "by_block", ["along", "site", "low", "high"], ["share"])
    sites = in_order(rows["site"], ())
    shade = colours(in_order(rows["along"], ALONG), ALONG)
    for name, colour in shade.items():
        part = rows[rows["along"] == name]
        at = [sites.index(site) for site in part["site"]]
        ax.plot(at, part["share"], marker="o", color=colour, label=name, markersize=3)
        ax.fill_between(at, part["low"], part["high"], color=colour, alpha=0.15, linewidth=0)
    ax.set_xticks(range(len(sites)), sites, rotation=90)
    ax.axhline(0, color="#999999", linewidth=0.6)
    ax.legend(loc="best")
    return rows


COLOUR = "#0072B2"


def greedy_curve(
    ax: Axes, rows: pd.DataFrame, *, goal: float | None = None, random: float | None = None
) -> pd.DataFrame:
    """Share of the effect after each step, with its interval; dropped parts are hollow.

    rows: columns `step` (int), `action` ("add" or "drop"), `component` (str), `share`, `low`, `high`
    (1 = all of it). goal: a line at the share that was wanted. random: a line at the mean share of
    random sets of the final size. Returns the rows drawn.
    """
    need(rows, "greedy_curve", ["action", "component"], ["step", "share"])
    rows = rows.sort_values("step")
    steps, share = rows["step"].to_numpy(float), rows["share"].to_numpy(float)
    ax.plot(steps, share, color=COLOUR, zorder=1)
    for x, y, action in zip(steps, share, rows["action"], strict=True):
        filled = COLOUR if action == "add" else "white"
        ax.plot([x], [y], "o", color=COLOUR, markerfacecolor=filled)
    if rows[["low", "high"]].notna().all(axis=None):
        ax.vlines(steps, rows["low"].to_numpy(float), rows["high"].to_numpy(float), color=COLOUR)
    for value, name, line in ((goal, "goal", "--"), (random, "random sets", ":")):
        if value is not None:
            ax.axhline(value, color="#777777", linewidth=0.9, linestyle=line, label=name)
    signs = {"add": "+", "drop": "−"}
    labels = [f"{signs[a]} {c}" for a, c in zip(rows["action"], rows["component"], strict=True)]
    ax.set_xticks(steps, labels, rotation=90)
    ax.set_ylabel("share of the clean–corrupted\ndifference made by the set")
    if goal is not None or random is not None:
        ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    ax.margins(x=0.1)
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    return rows.reset_index(drop=True)
