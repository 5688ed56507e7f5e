"""One probe at every site, judged only on groups that it did not see."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from probes.evaluation.auroc import auroc
from probes.foundation.digest import digest_bytes, digest_json
from probes.foundation.errors import unknown
from probes.foundation.progress import progress
from probes.probing.contrast_consistent import ContrastConsistentProbe
from probes.probing.direction import Direction
from probes.probing.discriminant import DiscriminantProbe
from probes.probing.logistic import LogisticProbe
from probes.probing.mean_difference import MeanDifferenceProbe
from probes.probing.paired_pca import PairedPCAProbe
from probes.probing.ridge import RidgeProbe
from probes.probing.rows import checked_rows, grouped_folds
from probes.probing.sparse import SparseProbe


class Probe(Protocol):
    """A fitted linear estimator."""

    coef_: np.ndarray
    intercept_: np.ndarray

    def fit(self, X: np.ndarray, y: np.ndarray) -> "Probe": ...
    def decision_function(self, X: np.ndarray) -> np.ndarray: ...


ESTIMATORS: dict[str, Callable[[], Probe]] = {
    "mean_difference": MeanDifferenceProbe,
    "logistic": LogisticProbe,
    "whitened": partial(MeanDifferenceProbe, shrinkage=0.1),
    "ridge": RidgeProbe,
    "discriminant": DiscriminantProbe,
    "paired_pca": PairedPCAProbe,
    "contrast_consistent": ContrastConsistentProbe,
    "sparse": SparseProbe,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Sweep:
    """Cross-validated AUROC by site, and the probe fitted on all rows at each.

    rows: one per site and fold: `estimator`, `site`, `fold`, `n_train`, `n_test`, `n_positive`,
        `auroc`. by_site: `site`, `auroc` (mean over folds), `auroc_min`, `auroc_max` over folds.
    scores: out-of-fold score per row by site; scores of different folds come from different fits,
        so compare them within a fold. folds: the fold that tested each row.
    directions: fitted on all rows, by site. best_site: highest mean AUROC, ties to the earlier.
    """

    estimator: str
    rows: pd.DataFrame
    by_site: pd.DataFrame
    scores: Mapping[str, Float[np.ndarray, "row"]]
    folds: Int[np.ndarray, "row"]
    directions: Mapping[str, Direction]
    best_site: str

    @property
    def best(self) -> Direction:
        """The direction at the best site."""
        return self.directions[self.best_site]

    def __str__(self) -> str:
        table = self.by_site.to_string(index=False, float_format="{:.3f}".format)
        return f"{self.estimator}, best site {self.best_site}\n{table}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        table = self.by_site.to_html(index=False, float_format="{:.3f}".format)
        return f"<p>{self.estimator}, best site <b>{self.best_site}</b></p>{table}"


def sweep(
    X: Mapping[str, Float[np.ndarray, "_ _"]],
    y: ArrayLike,
    groups: ArrayLike,
    *,
    estimator: str,
    n_folds: int = 5,
    seed: int = 0,
    weights_digest: str | None = None,
) -> Sweep:
    """Fit and cross-validate one probe per site; the best site is chosen by these folds alone.

    X: site -> (row, feature) activations, sites in the order of the model. y: row, True = positive.
    groups: row; rows of one group (template) are never both fitted and tested. estimator:
    a name in `ESTIMATORS`. weights_digest: of the model, for the directions.
    A site at which nothing varies scores every row alike: AUROC 0.5. Raises `InputError` for one
    class only, too few groups, NaN, no varying feature at any site, or lengths that differ.
    """
    if estimator not in ESTIMATORS:
        raise unknown("estimator", estimator, ESTIMATORS)
    make = ESTIMATORS[estimator]
    data = checked_rows(X, y, groups)
    folds = grouped_folds(data.y, data.groups, n_folds, seed)
    records, scores, directions = [], {}, {}
    for site, values in progress(data.X.items(), f"{estimator} probes", total=len(data.X)):
        values = np.asarray(values, dtype=np.float64)
        out_of_fold = np.empty(len(data.y))
        for fold in range(n_folds):
            test = folds == fold
            probe = make().fit(values[~test], data.y[~test])
            out_of_fold[test] = probe.decision_function(values[test])
            records.append(
                {
                    "estimator": estimator,
                    "site": site,
                    "fold": fold,
                    "n_train": int((~test).sum()),
                    "n_test": int(test.sum()),
                    "n_positive": int(data.y[test].sum()),
                    "auroc": auroc(data.y[test], out_of_fold[test]),
                }
            )
        final = make().fit(values, data.y)
        scores[site] = out_of_fold
        directions[site] = Direction(
            estimator=estimator,
            site=site,
            coef=final.coef_[0],
            intercept=float(final.intercept_[0]),
            weights_digest=weights_digest,
            fitted_on=_digest(values, data.y),
            seed=seed,
        )
    rows = pd.DataFrame(records)
    by_site = _by_site(rows)
    best = str(by_site["site"].iloc[int(by_site["auroc"].argmax())])
    return Sweep(estimator, rows, by_site, scores, folds, directions, best)


def _by_site(rows: pd.DataFrame) -> pd.DataFrame:
    grouped = rows.groupby("site", sort=False)["auroc"]
    table = pd.DataFrame(
        {"auroc": grouped.mean(), "auroc_min": grouped.min(), "auroc_max": grouped.max()}
    )
    return table.round({"auroc": 12}).reset_index()


def _digest(values: np.ndarray, y: np.ndarray) -> str:
    return digest_json([list(values.shape), digest_bytes(values.tobytes() + y.tobytes())])
