"""Shows where in the network, and at which token, the trigger's effect on the answer is carried."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from probes.foundation.errors import InputError, unknown
from probes.plotting.style import need

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
