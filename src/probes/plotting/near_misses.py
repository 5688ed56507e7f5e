"""Shows how exactly a trigger was learned: what else sets the backdoor off, before and after a stage."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from probes.plotting.intervals import whiskers
from probes.plotting.palette import SPARE_MARKERS
from probes.plotting.rows import in_order, need

WONG = ("#7f7f7f", "#D55E00", "#0072B2", "#009E73")
MARKERS = ("o", "D", "s", *SPARE_MARKERS)
SPREAD = 0.55  # of the distance between two kinds, over which the series are spread


def near_miss_points(ax: Axes, rows: pd.DataFrame) -> pd.DataFrame:
    """One row per kind of look-alike, one point with its interval per series, from the top down.

    rows: columns `kind` (str), `fires` (bool: its meaning is the trigger's, so that defection is no
    false alarm), `series` ("before", "after ..."), `value` (rate of defection), `low`, `high`.
    Kinds that mean the trigger stand below a line. Returns the rows drawn.
    """
    need(rows, "near_miss_points", ["kind", "fires", "series", "low", "high"], ["value"])
    kinds = [
        (kind, fires)
        for fires in (False, True)
        for kind in in_order(rows.loc[rows["fires"] == fires, "kind"], ())
    ]
    place = {each: -i for i, each in enumerate(kinds)}
    names = in_order(rows["series"], ())
    drawn = []
    for k, name in enumerate(names):
        part = rows[rows["series"] == name]
        at = [place[kind, bool(f)] for kind, f in zip(part["kind"], part["fires"], strict=True)]
        part = part.assign(at=at).sort_values("at", ascending=False)
        ax.errorbar(
            part["value"].to_numpy(float),
            part["at"].to_numpy(float) - SPREAD * ((k + 0.5) / len(names) - 0.5),
            xerr=whiskers(part),
            linestyle="none",
            color=WONG[k % len(WONG)],
            marker=MARKERS[k],
            markersize=3.5,
            capsize=1.5,
            elinewidth=0.9,
        )
        drawn.append(part.drop(columns="at"))
    misses = sum(not fires for _, fires in kinds)
    if 0 < misses < len(kinds):
        ax.axhline(0.5 - misses, color="#999999", linewidth=0.8)
    ax.set_yticks(list(place.values()), [kind for kind, _ in kinds])
    ax.set_ylim(0.6 - len(kinds), 0.6)
    ax.set_xlim(-0.04, 1.04)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    ax.grid(False, axis="y")
    ax.set_xlabel("defection")
    handles = [
        Line2D([], [], marker=MARKERS[k], color=WONG[k % len(WONG)], linestyle="none", label=name)
        for k, name in enumerate(names)
    ]
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5), handlelength=1)
    return pd.concat(drawn, ignore_index=True)
