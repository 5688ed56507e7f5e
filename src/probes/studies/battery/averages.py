"""Means over seeds of numbers that each have an interval over prompts."""

from collections.abc import Sequence

import pandas as pd

from probes.evaluation.bootstrap import Estimate
from probes.evaluation.over_seeds import RATE, pooled


def over_seeds_of(
    values: "pd.Series[float]",
    low: "pd.Series[float]",
    high: "pd.Series[float]",
    bounds: tuple[float, float] = RATE,
) -> dict[str, float | None]:
    """`value`, `low`, `high` over seeds; see `evaluation.over_seeds`."""
    if not len(values):
        return {"value": None, "low": None, "high": None}
    ends = zip(values, low, high, strict=True)
    each = [Estimate(float(v), float(a), float(b), 1) for v, a, b in ends]
    found = pooled(each, bounds=bounds)
    return {"value": found.value, "low": found.low, "high": found.high}


def averaged(
    rows: pd.DataFrame, by: Sequence[str], bounds: tuple[float, float] = RATE
) -> pd.DataFrame:
    """One row per combination of `by`: `value`, `low`, `high` over seeds, and how many `seeds`."""
    found = []
    for names, part in rows.groupby(list(by), sort=False, observed=True):
        keys = dict(zip(by, names, strict=True))
        numbers = over_seeds_of(
            part["value"],
            part["low"].fillna(part["value"]),
            part["high"].fillna(part["value"]),
            bounds,
        )
        found.append(keys | numbers | {"seeds": part["seed"].nunique()})
    return pd.DataFrame(found)
