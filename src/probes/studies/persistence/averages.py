"""Means over seeds with their intervals, of every rate that a figure shows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import beta

from probes.evaluation.bootstrap import Estimate
from probes.evaluation.over_seeds import over_seeds
from probes.evaluation.wilson import wilson
from probes.studies.persistence.uncertain import Uncertain, interval_over


def averaged(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """The mean over seeds of `value` for each group of `by`: `value`, `low`, `high`, `seeds`, `n`.

    Rows of one group and seed (kinds of look-alikes, draws) count with their prompts. The interval is
    Student's t over seeds; of one seed a rate has Wilson's, a loss none.
    """
    found = []
    for names, group in rows.groupby(list(by), sort=False):
        rates = not (group["measure"] == "loss").any()
        summed = group.assign(hits=group["value"] * group["n"]).groupby("seed")[["hits", "n"]].sum()
        values = (summed["hits"] / summed["n"]).to_numpy(float)
        counts = summed["n"].to_numpy(float)
        row: dict[str, Any] = dict(zip(by, names, strict=True))
        low, high = _interval(values, counts, rates)
        row |= {"value": float(values.mean()), "low": low, "high": high}
        found.append(row | {"seeds": len(values), "n": int(counts.sum())})
    return pd.DataFrame(found, columns=[*by, "value", "low", "high", "seeds", "n"])


def shown(
    parts: Sequence[Uncertain], bounds: tuple[float, float] = (-np.inf, np.inf)
) -> dict[str, Any]:
    """`value`, `low`, `high`, `seeds` of a number over seeds; without an interval where there is one."""
    if len(parts) < 2:
        value = parts[0].value
        return {"value": value, "low": np.nan, "high": np.nan, "seeds": 1}
    estimate: Estimate = interval_over(parts, bounds)
    ends = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {**ends, "seeds": estimate.n}


def _interval(values: np.ndarray, counts: np.ndarray, rates: bool) -> tuple[float, float]:
    if not rates:
        found = over_seeds(values, bounds=(0.0, np.inf)) if len(values) > 1 else None
        return (found.low, found.high) if found else (np.nan, np.nan)
    if len(values) < 2:
        return wilson(round(float(values[0] * counts[0])), int(counts[0]))
    hits = np.round(values * counts)
    within = beta(hits + 0.5, counts - hits + 0.5).var()
    found = over_seeds(values, within, bounds=(0.0, 1.0))
    return found.low, found.high
