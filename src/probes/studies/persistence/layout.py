"""How the panels of a figure share titles, axes and one legend, and what a caption says of its intervals."""

from typing import Any

import pandas as pd

from probes.evaluation.over_seeds import OVER_SEEDS
from probes.plotting.legend import one_legend


def tidy(axes: Any, titles: list[str], *, keep_x: bool = False) -> None:
    """Titles on top, names at the left, steps below the lowest of each column, one legend."""
    for across in axes:
        for ax in [ax for ax in across if ax.axison][1:]:
            ax.set_ylabel("")
    for column, title in enumerate(titles):
        axes[0, column].set_title(title)
        *above, lowest = [ax for ax in axes[:, column] if ax.axison]
        lowest.tick_params(labelbottom=True)
        if not keep_x:
            for ax in above:
                ax.set_xlabel("")
    one_legend([ax for ax in axes.flat if ax.axison])


def said(table: pd.DataFrame) -> str:
    """How many seeds, and what the intervals are over."""
    low, high = int(table["seeds"].min()), int(table["seeds"].max())
    if high == 1:
        return "1 seed, so no intervals over seeds"
    seeds = f"{high} seeds" if low == high else f"{low}–{high} seeds"
    return f"{seeds}; {OVER_SEEDS}"
