"""One probe at every site, judged only on groups that it did not see."""

import dataclasses
from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from probes.evaluation.auroc import auroc
from probes.foundation.digest import digest_bytes, digest_json
from probes.foundation.errors import unknown
from probes.models.identity import Identity
from probes.probing.batched.discriminant import fit_discriminant
from probes.probing.batched.logistic import fit_logistic
from probes.probing.batched.mean_difference import fit_mean_difference
from probes.probing.batched.ridge import fit_ridge
from probes.probing.contrast_consistent import ContrastConsistentProbe
from probes.probing.discriminant import DiscriminantProbe
from probes.probing.fitting import Batched, Estimator, Paired, Single, Task
from probes.probing.frozen import Card, FrozenProbe
from probes.probing.logistic import LogisticProbe
from probes.probing.mean_difference import MeanDifferenceProbe
from probes.probing.mlp import MLPProbe
from probes.probing.paired_pca import PairedPCAProbe
from probes.probing.ridge import RidgeProbe
from probes.probing.rows import checked_rows, grouped_folds, whole_pairs
from probes.probing.sparse import SparseProbe

ESTIMATORS: dict[str, Estimator] = {
    "mean_difference": Batched(MeanDifferenceProbe, fit_mean_difference),
    "logistic": Batched(LogisticProbe, partial(fit_logistic, standardise=True)),
    "whitened": Batched(
        partial(MeanDifferenceProbe, shrinkage=0.1),
        partial(fit_discriminant, shrinkage=(0.1,), prior=False),
    ),
    "ridge": Batched(RidgeProbe, fit_ridge),
    "discriminant": Batched(DiscriminantProbe, fit_discriminant),
    "paired_pca": Paired(PairedPCAProbe),
    "contrast_consistent": Paired(ContrastConsistentProbe),
    "sparse": Single(SparseProbe),
    "mlp": Single(MLPProbe),
}
"""Every probe of one row per prompt. `attention.AttentionProbe` reads whole sequences and stays outside."""


@dataclasses.dataclass(frozen=True, eq=False)
class Sweep:
    """Cross-validated AUROC by site, and the probe fitted on all rows at each.

    rows: one per site and fold: `estimator`, `site`, `fold`, `n_train`, `n_test`, `n_positive`,
        `auroc`. by_site: `site`, `auroc` (mean over folds), `auroc_min`, `auroc_max` over folds.
    scores: out-of-fold score per row by site; scores of different folds come from different fits,
        so compare them within a fold. folds: the fold that tested each row.
    directions: fitted on all rows, by site; a `Network` where the estimator has no direction.
    best_site: highest mean AUROC, ties to the earlier.
    """

    estimator: str
    rows: pd.DataFrame
    by_site: pd.DataFrame
    scores: Mapping[str, Float[np.ndarray, "row"]]
    folds: Int[np.ndarray, "row"]
    directions: Mapping[str, FrozenProbe]
    best_site: str

    @property
    def best(self) -> FrozenProbe:
        """The probe of the best site."""
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
    identity: Identity | None = None,
    pairs: ArrayLike | None = None,
    device: str = "cpu",
) -> Sweep:
    """Fit and cross-validate one probe per site; the best site is chosen by these folds alone.

    X: site -> (row, feature) activations, sites in the order of the model. y: row, True = positive.
    groups: row; rows of one group (template) are never both fitted and tested. estimator:
    a name in `ESTIMATORS`. identity: of the model that was read, for the directions.
    pairs: row, an id that the two rows of a pair share (a prompt with and without its trigger); rows
    alone with theirs are in no pair. "paired_pca" and "contrast_consistent" need it: they find a
    direction from pairs alone, and only its sign and zero from the labels of the fitted rows.
    device: of the fits that are done at once ("cuda"); the others are done on the CPU.
    A site at which nothing varies scores every row alike: AUROC 0.5. Raises `InputError` for one
    class only, too few groups, NaN, no varying feature at any site, pairs that are missing or parted
    by the groups, or lengths that differ.
    """
    if estimator not in ESTIMATORS:
        raise unknown("estimator", estimator, ESTIMATORS)
    data = checked_rows(X, y, groups)
    folds = grouped_folds(data.y, data.groups, n_folds, seed)
    needs_pairs = isinstance(ESTIMATORS[estimator], Paired)
    task = Task(
        X=data.X,
        y=data.y,
        train=np.stack([folds != fold for fold in range(n_folds)] + [np.ones(len(folds), bool)]),
        card=Card(estimator=estimator, site="", identity=identity, fitted_on="", seed=seed),
        pairs=whole_pairs(pairs, data.groups) if needs_pairs and pairs is not None else None,
        device=device,
    )
    records, scores, directions = [], {}, {}
    for site, probes in ESTIMATORS[estimator].fitted(task):
        values = np.asarray(data.X[site], dtype=np.float64)
        out_of_fold = np.empty(len(data.y))
        for fold, probe in enumerate(probes[:-1]):
            test = folds == fold
            out_of_fold[test] = probe.raw_scores(values[test])
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
        scores[site] = out_of_fold
        directions[site] = dataclasses.replace(probes[-1], fitted_on=_digest(values, data.y))
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
