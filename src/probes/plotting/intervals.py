"""Points with whiskers and lines with bands, the same in every figure; what has no interval gets none."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

BAND = 0.18


def whiskers(rows: pd.DataFrame) -> np.ndarray:
    """Lengths below and above `value` for `errorbar`, shape (2, row); 0 where `low` or `high` is empty."""
    value = rows["value"].to_numpy(float)
    below, above = value - rows["low"].to_numpy(float), rows["high"].to_numpy(float) - value
    return np.nan_to_num(np.stack([below, above]))


def band(ax: Axes, x: np.ndarray, rows: pd.DataFrame, color: str) -> None:
    """The interval around a line; nothing where there is none."""
    low, high = rows["low"].to_numpy(float), rows["high"].to_numpy(float)
    ax.fill_between(x, low, high, color=color, alpha=BAND, linewidth=0)


def percents(ax: Axes, low: float = -0.04, high: float = 1.04) -> None:
    """A vertical axis of rates."""
    ax.set_ylim(low, high)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
