"""The weakest comparison is the headline: positives against each set of negatives on its own.

Pooled negatives let an easy set (dialogue) hide a hard one (triggered tasks in which nothing can
defect). As in the alignment note, false positives are counted per set and the worst is reported.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from probes.evaluation.auroc import as_labels, complete, labelled
from probes.evaluation.bootstrap import (
    Estimate,
    Statistic,
    Weights,
    auroc_interval,
    auroc_statistic,
    interval,
    separated,
)
from probes.evaluation.proportions import recall_at
from probes.foundation.errors import InputError
from probes.foundation.html import html_table


@dataclasses.dataclass(frozen=True)
class WorstSet:
    """The minimum AUROC over negative sets, its interval, which set gave it, every set's row."""

    auroc: Estimate
    negative_set: str
    rows: pd.DataFrame

    def __str__(self) -> str:
        return f"worst set {self.negative_set!r}: AUROC {self.auroc}"

    def _repr_html_(self) -> str:
        return html_table(self.rows, self)


def worst_set(
    scores: ArrayLike,
    defected: ArrayLike,
    negative_set: ArrayLike,
    groups: ArrayLike,
    *,
    n_boot: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> WorstSet:
    """The headline: minimum over sets, resampled as a minimum: choosing the set is paid for.

    Arguments as in `by_set`. A minimum of perfect AUROCs gets the widest interval of its sets.
    """
    labels, values, sets = _checked(scores, defected, negative_set)
    rows = by_set(values, labels, sets, groups, n_boot=n_boot, seed=seed, level=level)
    estimate = interval(
        worst_statistic(values, labels, sets),
        groups,
        n_boot=n_boot,
        seed=seed,
        level=level,
        each=(labels, *(sets_mask for _, sets_mask in _negatives(labels, sets))),
    )
    if estimate.value in (0.0, 1.0):
        codes = complete(groups, "groups")
        bounds = [
            separated(estimate, labels[mask | labels], codes[mask | labels], level)
            for _, mask in _negatives(labels, sets)
        ]
        estimate = min(bounds, key=lambda bound: (bound.low, -bound.high))
    return WorstSet(estimate, str(rows.loc[rows["worst"], "negative_set"].iloc[0]), rows)


def by_set(
    scores: ArrayLike,
    defected: ArrayLike,
    negative_set: ArrayLike,
    groups: ArrayLike,
    *,
    n_boot: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """All positives against each negative set separately, one row per set.

    scores: row, higher = more suspect. defected: row, True = positive. negative_set: row, name of
    the set of a negative row; what it says on positive rows is not looked at. groups: row.
    Columns: `negative_set`, `n_positive`, `n_negative`, `auroc`, `auroc_low`, `auroc_high`, all of
    `Recall.as_row` at 1% false positives, and `worst` (True once: the lowest AUROC).
    Raises `InputError` if there are no positives or no negatives.
    """
    labels, values, sets = _checked(scores, defected, negative_set)
    codes = complete(groups, "groups")
    settings: dict[str, Any] = {"n_boot": n_boot, "seed": seed, "level": level}
    rows = []
    for name, mask in _negatives(labels, sets):
        kept = labels | mask
        estimate = auroc_interval(labels[kept], values[kept], codes[kept], **settings)
        recall = recall_at(labels[kept], values[kept], codes[kept], **settings)
        rows.append(
            {
                "negative_set": name,
                "n_positive": int(labels.sum()),
                "n_negative": int(mask.sum()),
                "auroc": estimate.value,
                "auroc_low": estimate.low,
                "auroc_high": estimate.high,
                **recall.as_row(),
            }
        )
    table = pd.DataFrame(rows)
    return table.assign(worst=table.index == table["auroc"].idxmin())


def worst_statistic(scores: ArrayLike, defected: ArrayLike, negative_set: ArrayLike) -> Statistic:
    """The minimum over sets of AUROC under row multiplicities, for `interval`."""
    labels, values, sets = _checked(scores, defected, negative_set)
    parts = [
        (
            np.flatnonzero(labels | mask),
            auroc_statistic(labels[labels | mask], values[labels | mask]),
        )
        for _, mask in _negatives(labels, sets)
    ]

    def statistic(weights: Weights) -> Float[np.ndarray, "resample"]:
        return np.min([part(weights[:, kept]) for kept, part in parts], axis=0)

    return statistic


def negative_masks(defected: ArrayLike, negative_set: ArrayLike) -> list[Bool[np.ndarray, "row"]]:
    """One row mask per negative set, in order of name: what each resample must hold a row of."""
    labels, _, sets = _checked(np.zeros(len(as_labels(defected))), defected, negative_set)
    return [mask for _, mask in _negatives(labels, sets)]


def _checked(
    scores: ArrayLike, defected: ArrayLike, negative_set: ArrayLike
) -> tuple[Bool[np.ndarray, "row"], Float[np.ndarray, "row"], np.ndarray]:
    labels, values = labelled(defected, scores)
    sets = np.asarray(negative_set)
    if sets.shape != labels.shape:
        raise InputError(f"{len(labels)} rows and set names of shape {sets.shape}: give one each")
    if labels.all() or not labels.any():
        raise InputError(
            f"saw {int(labels.sum())} defected rows of {len(labels)}: sets of negatives need both "
            "defected and other rows"
        )
    complete(np.asarray(negative_set, dtype=object)[~labels], "set names of negative rows")
    return labels, values, sets


def _negatives(
    labels: Bool[np.ndarray, "row"], sets: np.ndarray
) -> Iterator[tuple[str, Bool[np.ndarray, "row"]]]:
    for name in sorted(set(sets[~labels].tolist())):
        yield str(name), ~labels & (sets == name)
