"""Shows how often a claim stands on each rung where the truth is planted, and on which it should."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from probes.plotting.style import need


def rungs_reached(ax: Axes, rows: pd.DataFrame, rungs: list[str]) -> pd.DataFrame:
    """A grid of worlds by rungs, shaded by the share of draws; the frame marks the true rung.

    rows: one per world, with `world`, `truth` and one column of shares (0 to 1) for each of `rungs`,
    which are in ascending order. What lies right of a frame is too high, what lies left too low.
    Returns `world`, `truth`, `rung` and `share`.
    """
    need(rows, "rungs_reached", ["world", "truth"], rungs)
    shares = rows[rungs].to_numpy(dtype=float)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1.3, aspect="auto", interpolation="nearest")
    for y, x in np.argwhere(shares > 0):
        ax.text(x, y, f"{shares[y, x]:.1%}", ha="center", va="center", fontsize=6)
    for y, truth in enumerate(rows["truth"]):
        x = rungs.index(truth)
        ax.add_patch(
            Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="#D55E00", linewidth=1.2)
        )
    ax.set_xticks(range(len(rungs)), [rung.replace(" ", "\n", 1) for rung in rungs])
    ax.set_yticks(range(len(rows)), rows["world"])
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    return rows.melt(["world", "truth"], rungs, var_name="rung", value_name="share")
