"""How well directions do that were never fitted: the bar that a found direction must clear."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import ArrayLike

from probes.evaluation.auroc import auroc_columns
from probes.evaluation.worst_set import negative_masks
from probes.foundation.errors import InputError, unknown
from probes.foundation.html import html_table
from probes.foundation.progress import progress
from probes.foundation.seeds import stream
from probes.probing.rows import checked_rows


@dataclasses.dataclass(frozen=True, eq=False)
class RandomDirections:
    """AUROC of random directions on the evaluation rows: columns `site`, `direction`, `auroc`."""

    rows: pd.DataFrame

    def percentile(self, site: str, q: float = 95.0) -> float:
        """The AUROC that q percent of the directions at this site stay at or below."""
        sites = self.rows["site"].unique().tolist()
        if site not in sites:
            raise unknown("site", site, sites)
        return float(np.percentile(self.rows.loc[self.rows["site"] == site, "auroc"], q))

    def by_site(self) -> pd.DataFrame:
        """One row per site: `site`, `median`, `p95`, `best`."""
        grouped = self.rows.groupby("site", sort=False)["auroc"]
        table = {"median": grouped.median(), "p95": grouped.quantile(0.95), "best": grouped.max()}
        return pd.DataFrame(table).reset_index()

    def _repr_html_(self) -> str:
        return html_table(self.by_site())


def random_directions(
    X_fit: Mapping[str, Float[np.ndarray, "_ _"]],
    y_fit: ArrayLike,
    X: Mapping[str, Float[np.ndarray, "_ _"]],
    y: ArrayLike,
    *,
    n: int = 1000,
    seed: int = 0,
    negative_set: ArrayLike | None = None,
    either: bool = False,
) -> RandomDirections:
    """AUROC on evaluation rows of n uniform unit directions per site.

    Each direction's sign is the one that puts the positive mean of the *fit* rows higher; the
    evaluation rows have no say, so on data without a signal the AUROCs scatter around 0.5.
    negative_set: row of the evaluation data; if given, the minimum over sets as in `worst_set`.
    either: of the two signs the one that does better on the evaluation rows: a bar for whatever was
        oriented by looking at them.
    """
    if n < 1:
        raise InputError(f"n is {n}; give at least 1 direction, for instance 1000")
    if list(X_fit) != list(X):
        raise InputError(f"fit rows have sites {list(X_fit)}, evaluation rows {list(X)}")
    fit = checked_rows(X_fit, y_fit, np.arange(len(np.asarray(y_fit))))
    evaluation = checked_rows(X, y, np.arange(len(np.asarray(y))))
    labels = evaluation.y
    sets = [~labels] if negative_set is None else negative_masks(labels, negative_set)
    tables = []
    for site in progress(X, "random directions", total=len(X)):
        train = np.asarray(fit.X[site], dtype=np.float64)
        gap = train[fit.y].mean(axis=0) - train[~fit.y].mean(axis=0)
        drawn = stream(seed, "random_directions", site).normal(size=(train.shape[1], n))
        drawn /= np.linalg.norm(drawn, axis=0)
        drawn *= np.where(gap @ drawn >= 0, 1.0, -1.0)
        scores = np.asarray(evaluation.X[site], dtype=np.float64) @ drawn
        columns = np.repeat(labels[:, None], n, axis=1)
        kept = [labels | mask for mask in sets]
        found = [auroc_columns(columns[mask], scores[mask]) for mask in kept]
        values = np.min(found, axis=0)
        if either:
            values = np.maximum(values, 1 - np.max(found, axis=0))
        tables.append(pd.DataFrame({"site": site, "direction": np.arange(n), "auroc": values}))
    return RandomDirections(pd.concat(tables, ignore_index=True))
