"""Shows findings side by side: what was measured with its interval, and what the paper found."""

import textwrap

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from probes.plotting.style import VERDICTS, need, whiskers

WRAP = 46  # characters of a finding that fit on one line


def forest(ax: Axes, rows: pd.DataFrame, *, label: str = "share of the gap kept") -> pd.DataFrame:
    """One line per finding, from the top down, coloured by verdict; a hollow diamond is the paper's.

    rows: columns `finding`, `verdict` ("agrees", "disagrees" or "not resolved"), `value`, its `low`,
    `high` (may be empty), and `published`, the paper's number (may be empty).
    Returns the rows drawn.
    """
    need(rows, "forest", ["finding", "verdict", "low", "high", "published"], ["value"])
    for place, (_, row) in enumerate(rows.iterrows()):
        one = rows.iloc[[place]]
        ax.errorbar(
            [float(row["value"])], [-place], xerr=whiskers(one), color=VERDICTS[row["verdict"]],
            marker="o", capsize=1.5, elinewidth=1.1, linestyle="none", zorder=3,
        )  # fmt: skip
    known = rows["published"].notna().to_numpy()
    ax.scatter(
        rows["published"].to_numpy(float)[known],
        [-place for place in range(len(rows)) if known[place]],
        marker="D", s=26, facecolors="none", edgecolors="black", linewidths=0.8, zorder=4,
    )  # fmt: skip
    names = [textwrap.fill(str(name), WRAP) for name in rows["finding"]]
    ax.set_yticks([-place for place in range(len(rows))], names)
    ax.set_ylim(0.6 - len(rows), 0.6)
    ax.axvline(0, color="#999999", linewidth=0.8)
    ax.grid(False, axis="y")
    ax.set_xlabel(label)
    handles = [
        Line2D([], [], marker="o", linestyle="none", color=colour, label=verdict)
        for verdict, colour in VERDICTS.items()
        if verdict in set(rows["verdict"])
    ]
    if known.any():
        handles.append(
            Line2D([], [], marker="D", linestyle="none", color="black", markerfacecolor="none",
                   label="paper")
        )  # fmt: skip
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, handlelength=1)
    return rows.reset_index(drop=True)
