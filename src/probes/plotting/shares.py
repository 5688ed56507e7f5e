"""Shows which parts of a network carry an effect: a share per cell, and whether it is more than chance."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes.plotting.rows import in_order, need

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
