"""Shows whether what was found in one organism, or after one stage, is found in another: row on column."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from probes.foundation.errors import InputError
from probes.plotting.style import need

SMALL = 4  # cells across from which there is no room for intervals
DARK = 0.55  # luminance under which the number in a cell is written in white


def transfer_matrix(
    ax: Axes,
    rows: pd.DataFrame,
    *,
    order: list[str] | None = None,
    limits: tuple[float, float] = (0.0, 1.0),
    bar: str | None = "AUROC",
) -> pd.DataFrame:
    """Fitted on the row, tested on the column: a number and a colour per cell, centred between the limits.

    rows: columns `fitted_on`, `tested_on` (str), `value`, and `low`, `high` where there are intervals,
    which are written below the number where there is room. order: of names on both axes, top and left first; by default as
    they appear. A cell without a row stays empty and is crossed out. bar: label of the colour bar, or
    None for none. Returns the rows drawn. Raises `InputError` where a cell is there twice.
    """
    need(rows, "transfer_matrix", ["fitted_on", "tested_on"], ["value"])
    if rows.duplicated(["fitted_on", "tested_on"]).any():
        twice = rows[rows.duplicated(["fitted_on", "tested_on"])].iloc[0]
        raise InputError(
            f"transfer_matrix was given the cell {twice['fitted_on']!r} -> {twice['tested_on']!r} "
            "twice: choose one estimator, measure and way of transfer"
        )
    down = [n for n in order or dict.fromkeys(rows["fitted_on"]) if n in set(rows["fitted_on"])]
    across = [n for n in order or dict.fromkeys(rows["tested_on"]) if n in set(rows["tested_on"])]
    table = rows.pivot(index="fitted_on", columns="tested_on", values="value")
    values = table.reindex(index=down, columns=across).to_numpy(float)
    norm, colours = Normalize(*limits), colormaps["RdBu_r"]
    image = ax.imshow(values, cmap=colours, norm=norm, interpolation="nearest", aspect="auto")
    cells = {(r["fitted_on"], r["tested_on"]): r for _, r in rows.iterrows()}
    small = len(across) > SMALL
    size = 5.8 if small else 6.5
    for i, one in enumerate(down):
        for j, other in enumerate(across):
            if np.isnan(values[i, j]):
                ax.text(j, i, "×", ha="center", va="center", color="#999999")
                continue
            red, green, blue, _ = colours(norm(values[i, j]))
            light = 0.299 * red + 0.587 * green + 0.114 * blue
            ax.text(
                j, i, _said(cells[one, other], small), ha="center",
                va="center", fontsize=size, linespacing=1.1,
                color="white" if light < DARK else "black",
            )  # fmt: skip
    turned = [name.replace("\n", " ") for name in across]
    ax.set_xticks(range(len(across)), turned, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(down)), down)
    ax.set(xlabel="tested on", ylabel="fitted on")
    ax.tick_params(length=2)
    ax.grid(False)
    for edge in range(1, max(len(across), len(down))):
        ax.axvline(edge - 0.5, color="white", linewidth=0.8)
        ax.axhline(edge - 0.5, color="white", linewidth=0.8)
    ax.set(xlim=(-0.5, len(across) - 0.5), ylim=(len(down) - 0.5, -0.5))
    ax.spines[:].set_visible(False)
    if bar is not None:
        drawn = ax.figure.colorbar(image, ax=ax, pad=0.02, fraction=0.04, aspect=18)
        drawn.set_label(bar)
        drawn.outline.set_visible(False)
    return rows.reset_index(drop=True)


def _said(row: "pd.Series[Any]", small: bool) -> str:
    number = f"{row['value']:.2f}"
    has_interval = "low" in row and not pd.isna(row["low"]) and row["high"] > row["low"]
    return f"{number}\n{row['low']:.2f}–{row['high']:.2f}" if has_interval and not small else number
