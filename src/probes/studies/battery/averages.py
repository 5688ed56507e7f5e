"""Means over seeds of numbers that each have an interval over prompts."""

from collections.abc import Sequence

import pandas as pd
from scipy.stats import norm

from probes.evaluation.over_seeds import MIN_RUNS, over_seeds

SPAN = 2 * float(norm.ppf(0.975))
"""A 95% interval is so many standard deviations wide, if it is a normal one."""


def over_seeds_of(
    values: "pd.Series[float]",
    low: "pd.Series[float]",
    high: "pd.Series[float]",
    bounds: tuple[float, float] = (0.0, 1.0),
) -> dict[str, float | None]:
    """`value`, `low`, `high`: over seeds, never narrower than the prompts allow; of one seed its own."""
    if not len(values):
        return {"value": None, "low": None, "high": None}
    if len(values) < MIN_RUNS:
        return {
            name: float(each.iloc[0])
            for name, each in (("value", values), ("low", low), ("high", high))
        }
    within = ((high - low).to_numpy(float) / SPAN) ** 2
    found = over_seeds(values.to_numpy(float), within, bounds=bounds)
    return {"value": found.value, "low": found.low, "high": found.high}


def averaged(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """One row per combination of `by`: `value`, `low`, `high` over seeds, and how many `seeds`."""
    found = []
    for names, part in rows.groupby(list(by), sort=False, observed=True):
        keys = dict(zip(by, names, strict=True))
        numbers = over_seeds_of(
            part["value"], part["low"].fillna(part["value"]), part["high"].fillna(part["value"])
        )
        found.append(keys | numbers | {"seeds": part["seed"].nunique()})
    return pd.DataFrame(found)
