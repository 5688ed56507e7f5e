"""Shows whether larger organisms keep more of their backdoor, and which mechanism does."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from probes.plotting.intervals import percents, whiskers
from probes.plotting.palette import MECHANISM_MARKERS, MECHANISMS, colours, markers
from probes.plotting.rows import in_order, need

SHIFT = 0.05  # in factors of ten, so that intervals of one size stand beside one another


def kept_by_size(ax: Axes, rows: pd.DataFrame) -> pd.DataFrame:
    """The share of the backdoor that is left against the number of parameters, one line per mechanism.

    rows: columns `series` (mechanism, str), `n_parameters` (int), `value` (1 = all of it), and its
    `low`, `high` (may be empty). Returns the rows drawn.
    """
    need(rows, "kept_by_size", ["series", "low", "high"], ["n_parameters", "value"])
    names = in_order(rows["series"], MECHANISMS)
    colour, marker = colours(names, MECHANISMS), markers(names, MECHANISM_MARKERS)
    drawn = []
    for k, name in enumerate(names):
        part = rows[rows["series"] == name].sort_values("n_parameters")
        ax.errorbar(
            part["n_parameters"].to_numpy(float) * 10 ** (SHIFT * (k - (len(names) - 1) / 2)),
            part["value"].to_numpy(float),
            yerr=whiskers(part),
            color=colour[name],
            marker=marker[name],
            capsize=1.5,
            elinewidth=0.8,
        )
        drawn.append(part)
    sizes = sorted({int(n) for n in rows["n_parameters"]})
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(sizes))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n / 1e6:.2g}"))
    ax.set_xlim(sizes[0] / 1.6, sizes[-1] * 1.6)
    ax.set_xlabel("million parameters")
    tops = [float(rows[end].max()) for end in ("value", "high")]
    lows = [float(rows[end].min()) for end in ("value", "low")]
    percents(ax, low=max(-0.3, min(-0.04, *lows)), high=min(1.5, max(1.04, *tops)))
    ax.set_ylabel("share of the gap kept")
    handles = [
        Line2D([], [], marker=marker[name], color=colour[name], label=name) for name in names
    ]
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5))
    return pd.concat(drawn, ignore_index=True)
