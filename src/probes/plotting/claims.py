"""Shows what every probe turned out to read, and one number per kind and organism beside its null."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from probes.foundation.errors import InputError, unknown
from probes.plotting.style import (
    ORGANISM_MARKERS,
    ORGANISMS,
    colours,
    in_order,
    markers,
    need,
    whiskers,
)

CLAIMS = {
    "detects defection": "#009E73",
    "detects conditional behaviour": "#56B4E9",
    "detects the trigger": "#E69F00",
    "undetermined": "#cccccc",
    "no signal": "#ffffff",
}
"""A colour per verdict, told apart by colour-blind readers, and lighter the less was found."""
MARKS = {
    "detects defection": "D",
    "detects conditional behaviour": "C",
    "detects the trigger": "T",
    "undetermined": "?",
    "no signal": "–",
}


def claim_grid(ax: Axes, rows: pd.DataFrame) -> pd.DataFrame:
    """One cell per organism (down) and probe (across): the verdict as colour and letter, the AUROC below.

    rows: columns `recipe`, `estimator`, `verdict` (str), `auroc` (0 to 1); each cell once.
    Returns the rows drawn. Raises `InputError` for a verdict that is none, or a cell that is there twice.
    """
    need(rows, "claim_grid", ["recipe", "estimator", "verdict"], ["auroc"])
    if rows.duplicated(["recipe", "estimator"]).any():
        raise InputError("claim_grid was given a cell twice: choose one measure")
    down, across = (list(dict.fromkeys(rows[name])) for name in ("recipe", "estimator"))
    for _, row in rows.iterrows():
        verdict = str(row["verdict"])
        if verdict not in CLAIMS:
            raise unknown("verdict", verdict, CLAIMS)
        i, j = down.index(row["recipe"]), across.index(row["estimator"])
        ax.add_patch(
            Rectangle((j - 0.47, i - 0.45), 0.94, 0.9, facecolor=CLAIMS[verdict],
                      edgecolor="#888888", linewidth=0.5)
        )  # fmt: skip
        ax.text(j, i, f"{MARKS[verdict]}\n{row['auroc']:.2f}", ha="center", va="center",
                fontsize=6.5, linespacing=1.15)  # fmt: skip
    ax.set_xlim(-0.55, len(across) - 0.45)
    ax.set_ylim(len(down) - 0.45, -0.55)
    names = [textwrap.fill(str(name).replace("_", " "), 12) for name in across]
    ax.set_xticks(range(len(across)), names, rotation=35, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(down)), down)
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    seen = [verdict for verdict in CLAIMS if verdict in set(rows["verdict"])]
    handles = [
        Patch(facecolor=CLAIMS[v], edgecolor="#888888", linewidth=0.5, label=f"{MARKS[v]}  {v}")
        for v in seen
    ]
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1.01), ncols=3, handlelength=1)
    return rows.reset_index(drop=True)


SPREAD = 0.16


def organism_dots(
    ax: Axes, rows: pd.DataFrame, *, order: list[str] | None = None, label: str = "AUROC"
) -> pd.DataFrame:
    """Kinds downward, a dot per organism and kind, chance as a dotted line.

    rows: columns `kind`, `organism` (str), `value`, and `low`, `high` (may be empty: no interval).
    order: of the kinds, from the top; by default as they appear. Returns the rows drawn.
    """
    need(rows, "organism_dots", ["kind", "organism", "low", "high"], ["value"])
    kinds = [k for k in order or dict.fromkeys(rows["kind"]) if k in set(rows["kind"])]
    names = in_order(rows["organism"], ORGANISMS)
    colour, marker = colours(names, ORGANISMS), markers(names, ORGANISM_MARKERS)
    for i, name in enumerate(names):
        part = rows[rows["organism"] == name]
        shift = SPREAD * (i - (len(names) - 1) / 2)
        ax.errorbar(
            part["value"].to_numpy(float),
            np.array([kinds.index(kind) for kind in part["kind"]]) + shift,
            xerr=whiskers(part),
            color=colour[name],
            marker=marker[name],
            markersize=3.4,
            capsize=1.2,
            elinewidth=0.8,
            linestyle="none",
            label=name,
            zorder=3,
        )
    ax.axvline(0.5, color="#999999", linewidth=0.8, linestyle=":", zorder=1)
    ax.set_yticks(range(len(kinds)), [str(kind).replace("_", " ") for kind in kinds])
    ax.set_ylim(len(kinds) - 0.5, -0.5)
    ax.set_xlim(-0.03, 1.03)
    ax.grid(False, axis="y")
    ax.set_xlabel(label)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, handlelength=1)
    return rows.reset_index(drop=True)
