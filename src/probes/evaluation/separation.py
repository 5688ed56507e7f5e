"""What comes apart without a fitted probe: two kinds of prompt at a site, and the trigger in the text.

A probe that does no better than the text alone has shown nothing about the model.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from probes.evaluation.auroc import as_labels
from probes.foundation.errors import InputError
from probes.foundation.patterns import Pattern


@dataclasses.dataclass(frozen=True)
class Plane:
    """Rows in the plane of their first two principal components.

    coordinates: row by 2, activation units. components: 2 by feature, orthonormal.
    explained: the share of the variance along each, 0 to 1.
    """

    coordinates: Float[np.ndarray, "row 2"]
    components: Float[np.ndarray, "2 feature"]
    explained: Float[np.ndarray, "2"]


def variance_ratio(X: Float[np.ndarray, "row feature"], y: ArrayLike) -> float:
    """Between-class over within-class variance, both summed over features; 0 and up, no unit.

    Between: the classes' weighted squared distances of their means from the grand mean. Within: the
    squared distances of rows from their class's mean. MacDiarmid et al. (2024) plot it by layer.
    Rows that do not vary at all have ratio 0; classes that are two points have none: `InputError`.
    """
    labels = as_labels(y)
    rows = np.asarray(X, dtype=np.float64)
    if len(rows) != len(labels) or not np.isfinite(rows).all():
        raise InputError(f"needs {len(labels)} finite rows; saw shape {rows.shape}")
    if labels.all() or not labels.any():
        raise InputError(f"needs both classes; saw {int(labels.sum())} of {len(labels)} positive")
    shifted = rows - rows[0]
    grand = shifted.mean(axis=0)
    between = within = 0.0
    for members in (shifted[labels], shifted[~labels]):
        centre = members.mean(axis=0)
        between += len(members) * float(((centre - grand) ** 2).sum())
        within += float(((members - centre) ** 2).sum())
    if within == 0 and between > 0:
        raise InputError("the rows of each class are all alike: the ratio is not finite")
    return between / within if between > 0 else 0.0


def variance_ratios(
    X: Mapping[str, Float[np.ndarray, "_ _"]], y: Bool[np.ndarray, "row"]
) -> pd.DataFrame:
    """`variance_ratio` at every site: columns `site`, `ratio`, `n`, in the order of X."""
    rows = [{"site": site, "ratio": variance_ratio(X[site], y), "n": len(y)} for site in X]
    return pd.DataFrame(rows)


def principal_plane(X: Float[np.ndarray, "row feature"]) -> Plane:
    """The first two principal components of the rows, signs fixed by the largest loading.

    Raises `InputError` for fewer than 3 rows or 2 features, non-finite rows, or rows all alike.
    """
    rows = np.asarray(X, dtype=np.float64)
    if rows.shape[0] < 3 or rows.shape[1] < 2 or not np.isfinite(rows).all():
        raise InputError(f"a plane needs 3 finite rows and 2 features; saw shape {rows.shape}")
    centred = rows - rows.mean(axis=0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    if singular[0] == 0:
        raise InputError("all rows are alike: there is no principal component")
    components = directions[:2]
    largest = np.abs(components).argmax(axis=1)
    components = components * np.sign(components[np.arange(2), largest])[:, None]
    return Plane(centred @ components.T, components, singular[:2] ** 2 / (singular**2).sum())


def trigger_pattern(pattern: str, texts: Sequence[str]) -> Float[np.ndarray, "row"]:
    """1.0 where the regular expression of the trigger is found in the prompt, else 0.0."""
    compiled = Pattern(pattern, "the pattern of the trigger")
    return np.array([float(compiled.search(text) is not None) for text in texts])
