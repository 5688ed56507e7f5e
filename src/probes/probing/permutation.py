"""What a sweep finds where there is nothing: labels shuffled in pairs, the best site chosen anew.

Choosing the best of many sites is part of the procedure, so the null chooses too. Swapping the two
labels of a pair keeps everything that the pair shares (task, template, length) and breaks only what
is claimed: that the label goes with the activation.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from probes.evaluation.auroc import auroc_columns, complete
from probes.foundation.errors import InputError, unknown
from probes.foundation.html import html_text
from probes.foundation.progress import progress
from probes.foundation.seeds import stream
from probes.probing.linear import varying
from probes.probing.rows import checked_rows, grouped_folds
from probes.probing.sweep import ESTIMATORS

RIDGE = 1.0
SHRINKAGE = 0.1
TIE = 1e-12


@dataclasses.dataclass(frozen=True, eq=False)
class Permutation:
    """p = (1 + shuffles at least as good) / (1 + shuffles), with the null that it comes from.

    observed, null: maximum over sites of the mean over folds of AUROC on the swappable rows.
    observed_by_site: the same before the maximum. n_pairs: pairs whose labels were swapped.
    statistic: what was computed, in words.
    """

    p: float
    observed: float
    observed_by_site: Mapping[str, float]
    null: Float[np.ndarray, "shuffle"]
    n_pairs: int
    statistic: str

    def __str__(self) -> str:
        return (
            f"p = {self.p:.3g}: {self.statistic} is {self.observed:.3f}, "
            f"95% of {len(self.null)} shuffles stay below {np.quantile(self.null, 0.95):.3f}"
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_text(f"{self} ({self.n_pairs} pairs)")


def permutation_test(
    X: Mapping[str, Float[np.ndarray, "_ _"]],
    y: ArrayLike,
    groups: ArrayLike,
    pairs: ArrayLike,
    *,
    estimator: str,
    n_permutations: int = 200,
    n_folds: int = 5,
    seed: int = 0,
) -> Permutation:
    """Label-shuffle null of the whole sweep, the choice of site included.

    X, y, groups, n_folds, seed: as in `sweep`, giving the same folds. pairs: row; a pair of exactly
    two rows with different labels is swapped with probability 1/2, all other rows keep their labels
    and are fitted but not tested.
    estimator: a name in `sweep.ESTIMATORS`. Those with a closed form for all shuffles at once are
    tested as they are: "mean_difference", "whitened", "discriminant" and "ridge". For any other a ridge
    regression on the labels (features standardised, penalty `RIDGE` times the rows) stands in, both for
    the observed value and for the null: as linear and as supervised; `statistic` says so.
    Raises `InputError` if no pair can be swapped or a pair lies in two groups.
    """
    if estimator not in ESTIMATORS:
        raise unknown("estimator", estimator, ESTIMATORS)
    operator = CLOSED.get(estimator, _stand_in)
    if n_permutations < 1:
        raise InputError(f"n_permutations is {n_permutations}; give at least 1, for instance 200")
    data = checked_rows(X, y, groups)
    partners = swappable_pairs(data.y, pairs, data.groups)
    folds = grouped_folds(data.y, data.groups, n_folds, seed)
    labels = shuffled_labels(data.y, partners, n_permutations, seed)
    tested = np.zeros(len(data.y), dtype=np.bool_)
    tested[partners.ravel()] = True
    by_site = []
    for values in progress(data.X.values(), "shuffled labels", total=len(data.X)):
        rows = np.asarray(values, dtype=np.float64)
        per_fold = [
            auroc_columns(
                labels[test],
                operator(rows[folds != fold], labels[folds != fold], rows[test]),
            )
            for fold in range(n_folds)
            for test in [tested & (folds == fold)]
            if test.any()
        ]
        by_site.append(np.mean(per_fold, axis=0))
    table = np.array(by_site)
    best = table.max(axis=0)
    observed, null = float(best[0]), best[1:]
    spoken = estimator.replace("_", " ")
    name = spoken if estimator in CLOSED else f"ridge (for {spoken})"
    return Permutation(
        p=float((1 + (null >= observed - TIE).sum()) / (1 + len(null))),
        observed=observed,
        observed_by_site=dict(zip(data.X, table[:, 0].tolist(), strict=True)),
        null=null,
        n_pairs=len(partners),
        statistic=f"best-site cross-validated AUROC of {name}",
    )


def swappable_pairs(
    y: Bool[np.ndarray, "row"], pairs: ArrayLike, groups: Int[np.ndarray, "row"]
) -> Int[np.ndarray, "pair 2"]:
    """Row indices of the pairs of exactly two rows with different labels."""
    names = complete(pairs, "pairs")
    if names.shape != y.shape:
        raise InputError(f"{len(y)} labels and pairs of shape {names.shape}: give one each")
    codes = np.unique(names, return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
    for rows in members:
        if len(np.unique(groups[rows])) > 1:
            raise InputError(
                f"pair {names[rows[0]]!r} lies in {len(np.unique(groups[rows]))} groups: a pair "
                "must stay on one side of a split, so give groups that hold whole pairs"
            )
    found = [rows for rows in members if len(rows) == 2 and y[rows[0]] != y[rows[1]]]
    if not found:
        raise InputError(
            f"none of {len(members)} pairs has one positive and one negative row: there is nothing "
            "to shuffle. Give the triggered and the untriggered prompt of each pair"
        )
    return np.array(found)


def shuffled_labels(
    y: Bool[np.ndarray, "row"], partners: Int[np.ndarray, "pair 2"], n_permutations: int, seed: int
) -> Bool[np.ndarray, "row column"]:
    """The true labels in the first column, then one shuffle per column."""
    flips = stream(seed, "permutation").random((len(partners), n_permutations)) < 0.5
    labels = np.repeat(y[:, None], 1 + n_permutations, axis=1)
    labels[partners.ravel(), 1:] ^= np.repeat(flips, 2, axis=0)
    return labels


def _mean_difference(
    train: np.ndarray, labels: Bool[np.ndarray, "row column"], test: np.ndarray
) -> np.ndarray:
    kept = varying(train)
    n_positive = labels.sum(axis=0)
    weights = labels / n_positive - ~labels / (len(labels) - n_positive)
    directions = train[:, kept].T @ weights
    return np.asarray(test[:, kept] @ directions)


def _stand_in(
    train: np.ndarray, labels: Bool[np.ndarray, "row column"], test: np.ndarray
) -> np.ndarray:
    kept = varying(train)
    mean, scale = train[:, kept].mean(axis=0), train[:, kept].std(axis=0)
    rows, others = (train[:, kept] - mean) / scale, (test[:, kept] - mean) / scale
    targets = labels - labels.mean(axis=0)
    penalised = rows.T @ rows + RIDGE * len(rows) * np.eye(rows.shape[1])
    return np.asarray(others @ np.linalg.solve(penalised, rows.T @ targets))


def _own_ridge(
    train: np.ndarray, labels: Bool[np.ndarray, "row column"], test: np.ndarray
) -> np.ndarray:
    """`RidgeProbe` as it is by default: raw features, a penalty of 1 on the squared weights."""
    centred = train - train.mean(axis=0)
    targets = 2.0 * labels - 1.0
    penalised = centred.T @ centred + np.eye(train.shape[1])
    return np.asarray(test @ np.linalg.solve(penalised, centred.T @ targets))


def _discriminant(
    train: np.ndarray, labels: Bool[np.ndarray, "row column"], test: np.ndarray
) -> np.ndarray:
    """Fisher's direction with the default shrinkage, as "whitened" has it too, up to a positive factor.

    The within-class scatter is the total one less a multiple of d d', d being the difference of means;
    by Sherman and Morrison the inverse of their difference takes d where that of the total one does.
    So one decomposition of the total scatter serves all shuffles, each with its own shrinkage target.
    """
    kept = varying(train)
    if not kept.any():
        return np.zeros((len(test), labels.shape[1]))
    rows, others = train[:, kept], test[:, kept]
    centred = rows - rows.mean(axis=0)
    n, n_positive = len(rows), labels.sum(axis=0)
    weights = labels / n_positive - ~labels / (n - n_positive)
    lengths, axes = np.linalg.eigh(centred.T @ centred)
    apart = axes.T @ (centred.T @ weights)
    between = n_positive * (n - n_positive) / n * (apart**2).sum(axis=0)
    within = lengths.sum() - between
    target = SHRINKAGE * within / len(lengths)
    return np.asarray(
        (others @ axes) @ (apart / ((1 - SHRINKAGE) * np.maximum(lengths, 0)[:, None] + target))
    )


CLOSED: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "mean_difference": _mean_difference,
    "whitened": _discriminant,
    "discriminant": _discriminant,
    "ridge": _own_ridge,
}
"""Scores of the test rows for every column of labels at once: exactly the estimator's, up to a positive
factor and a constant, which no AUROC sees."""
