"""Shows how a set of parts grew, and what share of the effect it had at each step."""

import pandas as pd
from matplotlib.axes import Axes

from probes.plotting.rows import need

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
