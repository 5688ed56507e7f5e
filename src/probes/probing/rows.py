"""What a sweep may be given: activations by site, labels and groups that can be cross-validated."""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from sklearn.model_selection import StratifiedGroupKFold

from probes.evaluation.auroc import as_labels, complete
from probes.foundation.errors import InputError
from probes.foundation.seeds import derive_seed

CONSTANT = 1e-6


def varying(X: Float[np.ndarray, "row feature"]) -> Bool[np.ndarray, "feature"]:
    """True for features whose range exceeds `CONSTANT` times their largest magnitude.

    The rest is rounding noise (the embedding of one and the same token in batches of different
    shape), which a probe must not blow up into a signal: it may go with the length of the prompt.
    """
    return np.asarray(np.ptp(X, axis=0) > CONSTANT * np.abs(X).max(axis=0))


@dataclasses.dataclass(frozen=True)
class Rows:
    """Checked rows: X by site, each (row, feature) and finite; y with both classes; group codes."""

    X: Mapping[str, np.ndarray]
    y: Bool[np.ndarray, "row"]
    groups: Int[np.ndarray, "row"]


def checked_rows(
    X: Mapping[str, Float[np.ndarray, "_ _"]], y: ArrayLike, groups: ArrayLike
) -> Rows:
    """Refuse what no probe can be fitted on, saying what was seen and what would do."""
    labels = as_labels(y)
    names = complete(groups, "groups")
    if not X:
        raise InputError("no sites: give at least one, {'resid_post.0': array of (row, feature)}")
    if names.shape != labels.shape:
        raise InputError(f"{len(labels)} labels and groups of shape {names.shape}: give one each")
    if labels.all() or not labels.any():
        raise InputError(
            f"one class only: {int(labels.sum())} positive of {len(labels)} rows. A probe needs "
            "rows of both classes: give prompts on which the model does both, or another label"
        )
    for site, values in X.items():
        if values.ndim != 2 or len(values) != len(labels):
            raise InputError(
                f"{site} has shape {values.shape} for {len(labels)} labels: give (row, feature) "
                "with one row per label"
            )
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
            raise InputError(
                f"{site} holds NaN or infinite activations (first at row {row}): collect again in "
                "float32, or leave the row out"
            )
    if not any(varying(values).any() for values in X.values()):
        raise InputError(
            f"no feature varies at any of {', '.join(X)}: all rows are alike. Look at the position "
            "that was collected: the prompts must differ at or before it"
        )
    return Rows(dict(X), labels, np.unique(names, return_inverse=True)[1].astype(np.int64))


def grouped_folds(
    y: Bool[np.ndarray, "row"], groups: Int[np.ndarray, "row"], n_folds: int, seed: int
) -> Int[np.ndarray, "row"]:
    """The fold, 0 to n_folds - 1, in which each row is tested; a group is never in two folds.

    Classes are balanced over folds where groups allow it. Raises `InputError` if there are fewer
    groups than folds, or a fold has to test or train on one class.
    """
    n_groups = len(np.unique(groups))
    if not 2 <= n_folds <= n_groups:
        raise InputError(
            f"{n_folds} folds over {n_groups} groups: give 2 to {n_groups} folds, or prompts "
            "of more templates"
        )
    held = [len(np.unique(groups[y])), len(np.unique(groups[~y]))]
    fewer = InputError(
        f"{n_folds} folds need both classes in each, but {held[0]} groups hold a positive and "
        f"{held[1]} a negative row: give fewer folds or more groups of the rarer class"
    )
    if min(held) < n_folds:
        raise fewer
    splitter = StratifiedGroupKFold(
        n_splits=n_folds, shuffle=True, random_state=derive_seed(seed, "folds")
    )
    folds = np.full(len(y), -1, dtype=np.int64)
    for fold, (_, test) in enumerate(splitter.split(np.zeros((len(y), 1)), y, groups)):
        folds[test] = fold
    for fold in range(n_folds):
        tested = y[folds == fold]
        if len(tested) == 0 or tested.all() or not tested.any():
            raise fewer
    return folds


def whole_pairs(pairs: ArrayLike, groups: Int[np.ndarray, "row"]) -> np.ndarray:
    """The pair of each row; refuses one whose rows lie in different groups, which folds would part."""
    names = complete(pairs, "pairs")
    if names.shape != groups.shape:
        raise InputError(f"{len(groups)} rows and pairs of shape {names.shape}: give one id each")
    known, codes = np.unique(names, return_inverse=True)
    lowest, highest = np.full(len(known), len(groups)), np.full(len(known), -1)
    np.minimum.at(lowest, codes, groups)
    np.maximum.at(highest, codes, groups)
    parted = np.flatnonzero(lowest != highest)
    if len(parted):
        raise InputError(
            f"pair {str(known[parted[0]])!r} lies in more than one group: a pair must stay on one side of "
            "a split, so give groups that hold whole pairs"
        )
    return names


def require_disjoint(fit: Iterable[str], evaluation: Iterable[str], kind: str = "template") -> None:
    """Refuse a split in which fit and evaluation rows share a template, pair or family."""
    shared = sorted(set(fit) & set(evaluation))
    if shared:
        raise InputError(
            f"{len(shared)} {kind}s lie on both sides of the split ({', '.join(shared[:3])}): near "
            "copies would be tested on what they were fitted on. Split whole groups"
        )
