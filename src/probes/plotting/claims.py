"""Shows claims of several runs: how many reach each rung, and what every check answers in each."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from probes.foundation.errors import InputError
from probes.plotting.checks import ANSWERS
from probes.plotting.style import need

MOST = 0.5


def runs_on_rungs(ax: Axes, rows: pd.DataFrame, rungs: list[str]) -> pd.DataFrame:
    """A grid of estimators by rungs, "k/n" in each cell, shaded by the share; a frame where most runs are.

    rows: columns `estimator`, `rung`, `k`, `n` (runs), `value`, `low` (share, and its lower bound); each
    cell once. rungs: in ascending order. Returns the rows drawn.
    """
    need(rows, "runs_on_rungs", ["estimator", "rung"], ["k", "n", "value", "low"])
    if rows.duplicated(["estimator", "rung"]).any():
        raise InputError("runs_on_rungs was given a cell twice: choose one recipe and position")
    down = list(dict.fromkeys(rows["estimator"]))
    wide = rows.pivot(index="estimator", columns="rung", values="value")
    shares = wide.reindex(index=down, columns=rungs).to_numpy(float)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1.3, aspect="auto", interpolation="nearest")
    for row in rows.to_dict("records"):
        x, y = rungs.index(row["rung"]), down.index(row["estimator"])
        ax.text(x, y, f"{row['k']}/{row['n']}", ha="center", va="center", fontsize=7)
        if row["low"] > MOST:
            frame = Rectangle((x - 0.48, y - 0.45), 0.96, 0.9, fill=False, edgecolor="#D55E00")
            ax.add_patch(frame)
    ax.set_xticks(range(len(rungs)), [rung.replace(" ", "\n", 1) for rung in rungs])
    ax.set_yticks(range(len(down)), [name.replace("_", " ") for name in down])
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    return rows.reset_index(drop=True)


def checks_by_run(ax: Axes, rows: pd.DataFrame) -> pd.DataFrame:
    """One line per check, from the top down: a dot for each run, coloured by its answer, and the threshold.

    rows: columns `name`, `answer`, `seed`, `value`, `threshold`. Returns the rows drawn.
    """
    need(rows, "checks_by_run", ["name", "answer", "seed"], ["value", "threshold"])
    names = list(dict.fromkeys(rows["name"]))
    seeds = sorted(rows["seed"].unique())
    shift = dict(zip(seeds, np.linspace(0.25, -0.25, len(seeds)), strict=True))
    for row in rows.to_dict("records"):
        place = -names.index(row["name"])
        ax.plot(
            [row["value"]], [place + (shift[row["seed"]] if len(seeds) > 1 else 0)], "o",
            color=ANSWERS[row["answer"]], markersize=3,
        )  # fmt: skip
        ax.plot([row["threshold"]] * 2, [place - 0.38, place + 0.38], color="black", linewidth=1)
    ax.set_yticks([-place for place in range(len(names))], names)
    ax.set_ylim(0.6 - len(names), 0.6)
    ax.grid(False, axis="y")
    ax.set_xlabel("value; black: the threshold")
    seen = [answer for answer in ANSWERS if answer in set(rows["answer"])]
    handles = [
        Line2D([], [], marker="o", linestyle="none", color=ANSWERS[answer], label=answer)
        for answer in seen
    ]
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, handlelength=1)
    return rows.reset_index(drop=True)
