"""The same numbers over seeds: one row per penalty and detector, with an interval."""

import pandas as pd

from probes.evaluation.bootstrap import Estimate
from probes.evaluation.over_seeds import RATE, pooled
from probes.organisms.measuring import LOSS

BY = ["against", "organism", "penalty"]


def pooled_detection(rows: pd.DataFrame) -> pd.DataFrame:
    """Detectors over seeds: `BY`, `detector`, `measure`, `value`, `low`, `high`, `seeds`."""
    return _pooled(rows, [*BY, "detector", "measure"])


def pooled_behaviour(rows: pd.DataFrame) -> pd.DataFrame:
    """Rates over seeds: `BY`, `set`, `kind`, `triggered`, `measure`, `value`, `low`, `high`, `seeds`,
    and `installed`, the share of these seeds in which the organism is one."""
    rates = rows[rows["measure"] != LOSS]
    names = [*BY, "set", "kind", "triggered", "measure"]
    shares = rates.groupby(names, sort=False, as_index=False)["installed"].mean()
    return _pooled(rates, names).merge(shares, on=names, validate="one_to_one")


def _pooled(rows: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    table = []
    for values, part in rows.groupby(names, sort=False):
        found = estimate_over(part)
        table.append(
            {
                **dict(zip(names, values, strict=True)),
                "value": found.value,
                "low": found.low,
                "high": found.high,
                "seeds": part["seed"].nunique(),
            }
        )
    return pd.DataFrame(table, columns=[*names, "value", "low", "high", "seeds"])


def estimate_over(part: pd.DataFrame) -> Estimate:
    """See `evaluation.over_seeds`. part: one row per seed with `value`, `low`, `high`."""
    ends = part[["value", "low", "high"]].to_numpy(float).tolist()
    return pooled([Estimate(value, low, high, 1) for value, low, high in ends], bounds=RATE)
