"""Means over seeds with their intervals, of every rate that a figure shows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import beta

from probes.evaluation.over_seeds import EVERYWHERE, LOSS, RATE, over_seeds
from probes.studies.persistence.uncertain import Uncertain, interval_over


def averaged(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """The mean over seeds of `value` for each group of `by`: `value`, `low`, `high`, `seeds`, `n`.

    Rows of one group and seed (kinds of look-alikes, draws) count with their prompts. The interval
    is that of `over_seeds`, NaN for one seed.
    """
    found = []
    for names, group in rows.groupby(list(by), sort=False):
        rates = not (group["measure"] == "loss").any()
        summed = group.assign(hits=group["value"] * group["n"]).groupby("seed")[["hits", "n"]].sum()
        values = (summed["hits"] / summed["n"]).to_numpy(float)
        counts = summed["n"].to_numpy(float)
        row: dict[str, Any] = dict(zip(by, names, strict=True))
        hits = np.round(values * counts)
        within = beta(hits + 0.5, counts - hits + 0.5).var() if rates else None
        mean = over_seeds(values, within, bounds=RATE if rates else LOSS)
        row |= {"value": mean.value, "low": mean.low, "high": mean.high}
        found.append(row | {"seeds": len(values), "n": int(counts.sum())})
    return pd.DataFrame(found, columns=[*by, "value", "low", "high", "seeds", "n"])


def shown(parts: Sequence[Uncertain], bounds: tuple[float, float] = EVERYWHERE) -> dict[str, Any]:
    """`value`, `low`, `high`, `seeds` of a number over seeds."""
    estimate = interval_over(parts, bounds)
    ends = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {**ends, "seeds": estimate.n}
