"""Shows whether two measures of the same places agree, and what a direction carries of the whole."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from probes.plotting.palette import SPARE, SPARE_MARKERS, colours, markers
from probes.plotting.rows import in_order, need

ALONG = {"whole": "#000000", "probe": "#D55E00", "random": "#7f7f7f"}


def two_measures(
    ax: Axes, rows: pd.DataFrame, *, x: str, y: str, series: str, order: Sequence[str] = ()
) -> pd.DataFrame:
    """One point per place, a colour and marker per series. rows: `x`, `y` (finite), `series`."""
    need(rows, "two_measures", [series], [x, y])
    names = in_order(rows[series], order)
    shade, shape = colours(names, {}), markers(names, {})
    if len(names) > len(SPARE):
        shade |= dict(zip(names[len(SPARE) :], ("#0072B2", "#009E73", "#D55E00"), strict=False))
        shape |= dict(zip(names[len(SPARE_MARKERS) :], ("o", "s", "^"), strict=False))
    for name in names:
        part = rows[rows[series] == name]
        ax.plot(
            part[x], part[y], linestyle="none", marker=shape[name], color=shade[name], label=name,
            markersize=3.5, alpha=0.8, markeredgewidth=0,
        )  # fmt: skip
    ax.legend(loc="best", fontsize=6, handletextpad=0.2)
    return rows


def by_block(ax: Axes, rows: pd.DataFrame) -> pd.DataFrame:
    """Shares by site from the bottom up, one line per kind of value, bands from `low` to `high`.

    rows: `along` ("whole", "probe", "random"), `site` (str), `share`, `low`, `high` (may be empty).
    """
    need(rows, "by_block", ["along", "site", "low", "high"], ["share"])
    sites = in_order(rows["site"], ())
    shade = colours(in_order(rows["along"], ALONG), ALONG)
    for name, colour in shade.items():
        part = rows[rows["along"] == name]
        at = [sites.index(site) for site in part["site"]]
        ax.plot(at, part["share"], marker="o", color=colour, label=name, markersize=3)
        ax.fill_between(at, part["low"], part["high"], color=colour, alpha=0.15, linewidth=0)
    ax.set_xticks(range(len(sites)), sites, rotation=90)
    ax.axhline(0, color="#999999", linewidth=0.6)
    ax.legend(loc="best")
    return rows
