"""The order in which effects are read: the largest first, whatever their sign."""

import pandas as pd


def largest_first(rows: pd.DataFrame, by: str = "mean") -> pd.DataFrame:
    """All rows by the size of one column, ties in the order they stand in; row numbers are kept."""
    return rows.loc[rows[by].abs().sort_values(ascending=False, kind="stable").index]


def significant(rows: pd.DataFrame, level: float) -> pd.DataFrame:
    """The rows whose `p` is at most `level`, largest effect first."""
    return largest_first(rows[rows["p"] <= level])
