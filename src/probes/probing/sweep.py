"""How the estimators of a sweep are fitted: at all sites and folds at once, or one after the other."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from probes.activations.reading import Activations
from probes.evaluation.auroc import auroc
from probes.foundation.digest import digest_bytes, digest_json
from probes.foundation.errors import InputError, unknown
from probes.foundation.html import html_table
from probes.foundation.progress import progress
from probes.models.identity import Identity
from probes.plotting.layers import auroc_by_site
from probes.plotting.style import PAGE, PaperFigure, figure, style
from probes.probing.batched.closed import fit_discriminant, fit_mean_difference, fit_ridge
from probes.probing.batched.logistic import fit_logistic
from probes.probing.batched.problems import LinearFits
from probes.probing.estimators import (
    ContrastConsistentProbe,
    DiscriminantProbe,
    LogisticProbe,
    MeanDifferenceProbe,
    MLPProbe,
    PairedPCAProbe,
    RidgeProbe,
    SparseProbe,
)
from probes.probing.frozen import Card, Direction, FrozenProbe
from probes.probing.rows import checked_rows, grouped_folds, varying, whole_pairs


@runtime_checkable
class Probe(Protocol):
    """An estimator of one matrix of activations."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> "Probe": ...
    def freeze(self, card: Card) -> FrozenProbe: ...


@runtime_checkable
class PairedProbe(Protocol):
    """An estimator that compares the two rows of a pair."""

    def fit(self, X: np.ndarray, y: np.ndarray, pairs: np.ndarray) -> Probe: ...


@runtime_checkable
class BatchedFit(Protocol):
    """The same estimator at many sites of one width, and on the rows of every fold, at once."""

    def __call__(
        self, X: list[np.ndarray], y: np.ndarray, train: np.ndarray, *, device: str
    ) -> LinearFits: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """What is fitted: at each site a probe for each row of `train`, on the rows that are True there.

    pairs: row, an id; None where none were given. device: of fits that are done at once.
    """

    X: Mapping[str, np.ndarray]
    y: Bool[np.ndarray, "row"]
    train: Bool[np.ndarray, "fit row"]
    card: Card
    pairs: np.ndarray | None
    device: str

    def card_at(self, site: str) -> Card:
        return self.card.model_copy(update={"site": site})


Fitted = Iterator[tuple[str, list[FrozenProbe]]]
"""Site by site, in order, a probe for each row of `train`."""


@dataclasses.dataclass(frozen=True)
class Batched:
    """Fitted at all sites and folds at once, with the weights that `make` finds one by one."""

    make: Callable[[], Probe]
    fit: BatchedFit

    def fitted(self, task: Task) -> Fitted:
        of_width: dict[int, list[str]] = {}
        for site, values in task.X.items():
            of_width.setdefault(values.shape[1], []).append(site)
        found = {}
        for sites in of_width.values():
            rows = [task.X[site] for site in sites]
            fits = self.fit(rows, task.y, task.train, device=task.device)
            for number, site in enumerate(sites):
                found[site] = fits.coef[number, :, 0], fits.intercept[number, :, 0]
        for site in task.X:
            card = dict(task.card_at(site))
            probes: list[FrozenProbe] = [
                Direction(coef=coef, intercept=float(intercept), **card)
                for coef, intercept in zip(*found[site], strict=True)
            ]
            yield site, probes


@dataclasses.dataclass(frozen=True)
class Single:
    """Fitted at one site and fold after the other."""

    make: Callable[[], Probe]

    def fitted(self, task: Task) -> Fitted:
        def fit(X: np.ndarray, mask: np.ndarray, card: Card) -> FrozenProbe:
            return self.make().fit(X[mask], task.y[mask]).freeze(card)

        return _one_by_one(fit, task)


@dataclasses.dataclass(frozen=True)
class Paired:
    """Fitted at one site and fold after the other on the rows of pairs, which must be given."""

    make: Callable[[], PairedProbe]

    def fitted(self, task: Task) -> Fitted:
        if task.pairs is None:
            raise InputError(
                f"{task.card.estimator} compares the two rows of a pair; saw no pairs. Give pairs=, an "
                "id per row that a prompt with and without its trigger share"
            )
        pairs = task.pairs

        def fit(X: np.ndarray, mask: np.ndarray, card: Card) -> FrozenProbe:
            return self.make().fit(X[mask], task.y[mask], pairs[mask]).freeze(card)

        return _one_by_one(fit, task)


Estimator = Batched | Single | Paired


def _one_by_one(fit: Callable[[np.ndarray, np.ndarray, Card], FrozenProbe], task: Task) -> Fitted:
    """Where no feature varies there is nothing to fit: every row gets the same score."""
    for site, rows in progress(task.X.items(), f"{task.card.estimator} probes", total=len(task.X)):
        X, card = np.asarray(rows, dtype=np.float64), task.card_at(site)
        nothing = Direction(coef=np.zeros(X.shape[1]), intercept=0.0, **dict(card))
        yield (
            site,
            [fit(X, mask, card) if varying(X[mask]).any() else nothing for mask in task.train],
        )


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

    def keys(self) -> list[str]:
        """Names of the sites in order of depth."""
        return list(self.directions)

    def plot(self) -> PaperFigure:
        """AUROC by site, with a bar from the lowest to the highest fold."""
        with style():
            drawn = figure(PAGE * 0.6, 2.6)
            ax = drawn.subplots()
            auroc_by_site(ax, self.by_site)
            ax.set_title(f"{self.estimator.replace('_', ' ')}: best at {self.best_site}")
        return drawn

    def __getitem__(self, site: str) -> FrozenProbe:
        """The probe of a site."""
        if site not in self.directions:
            raise unknown("site of this sweep", site, self.directions)
        return self.directions[site]

    def __iter__(self) -> Iterator[str]:
        return iter(self.directions)

    def __contains__(self, site: object) -> bool:
        return site in self.directions

    def __len__(self) -> int:
        """Sites."""
        return len(self.directions)

    def __str__(self) -> str:
        table = self.by_site.to_string(index=False, float_format="{:.3f}".format)
        return f"{self.estimator}, best site {self.best_site}\n{table}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table(self.by_site, f"{self.estimator}, best site {self.best_site}")


def sweep(
    X: Mapping[str, Float[np.ndarray, "_ _"]] | Activations,
    y: ArrayLike,
    groups: ArrayLike,
    *,
    estimator: str = "mean_difference",
    n_folds: int = 5,
    seed: int = 0,
    identity: Identity | None = None,
    pairs: ArrayLike | None = None,
    device: str = "cpu",
) -> Sweep:
    """Fit and cross-validate one probe per site; the best site is chosen by these folds alone.

    X: site -> (row, feature) activations, sites in the order of the model; or activations of one
    position per prompt, for which a column of `X.prompts` may be named as y, groups or pairs, and
    whose model is the identity. y: row, True = positive.
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
    if isinstance(X, Activations):
        y, groups = (_column(X, each) for each in (y, groups))
        pairs = None if pairs is None else _column(X, pairs)
        identity = identity or X.identity
        X = {site: X.matrix(site) for site in X}
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


def _column(acts: Activations, given: ArrayLike) -> ArrayLike:
    """A column of the prompts' labels where one is named."""
    if not isinstance(given, str):
        return given
    if given not in acts.prompts:
        raise unknown("column of the prompts", given, acts.prompts.columns)
    return acts.prompts[given].to_numpy()


def _by_site(rows: pd.DataFrame) -> pd.DataFrame:
    grouped = rows.groupby("site", sort=False)["auroc"]
    table = pd.DataFrame(
        {"auroc": grouped.mean(), "auroc_min": grouped.min(), "auroc_max": grouped.max()}
    )
    return table.round({"auroc": 12}).reset_index()


def _digest(values: np.ndarray, y: np.ndarray) -> str:
    return digest_json([list(values.shape), digest_bytes(values.tobytes() + y.tobytes())])
