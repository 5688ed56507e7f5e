"""Shows one number per kind and organism with its interval, side by side: an effect beside its null."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from probes.plotting.intervals import whiskers
from probes.plotting.palette import ORGANISM_MARKERS, ORGANISMS, colours, markers
from probes.plotting.rows import in_order, need

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
