"""How well a score ranks positives above negatives: the one number that needs no threshold."""

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from probes.foundation.errors import InputError

Labels = Bool[np.ndarray, "row"]
Scores = Float[np.ndarray, "row"]


def auroc(y: ArrayLike, scores: ArrayLike) -> float:
    """The probability that a random positive scores above a random negative, ties counting half.

    y: row, bool (or 0/1), True = positive. scores: row, any finite real numbers, higher = positive.
    Range 0 to 1; 0.5 is chance. Raises `InputError` if one class is absent, lengths differ or a
    score is not finite. Mann and Whitney (1947), by midranks.
    """
    labels, values = labelled(y, scores)
    require_both_classes(labels)
    n_positive = int(labels.sum())
    n_negative = len(labels) - n_positive
    wins = rankdata(values)[labels].sum() - n_positive * (n_positive + 1) / 2
    return float(wins / (n_positive * n_negative))


def auroc_columns(
    y: Bool[np.ndarray, "row column"], scores: Float[np.ndarray, "row column"]
) -> Float[np.ndarray, "column"]:
    """`auroc` of many score vectors at once, each with its own labels: for null distributions.

    y and scores: row by column. Raises `InputError` if a column holds one class, or for NaN.
    """
    if not np.isfinite(scores).all():
        raise InputError(f"{int((~np.isfinite(scores)).sum())} scores are NaN or infinite")
    n_positive = y.sum(axis=0)
    n_negative = len(y) - n_positive
    if (n_positive * n_negative == 0).any():
        raise InputError(f"{int((n_positive * n_negative == 0).sum())} columns hold one class only")
    wins = (rankdata(scores, axis=0) * y).sum(axis=0) - n_positive * (n_positive + 1) / 2
    return np.asarray(wins / (n_positive * n_negative))


def roc_curve(y: ArrayLike, scores: ArrayLike) -> pd.DataFrame:
    """The trade between false alarms and catches, one row per distinct threshold.

    Columns: `threshold` (alarm if score >= threshold; the first row's is +inf, no alarm at all),
    `false_positive_rate` and `true_positive_rate`, both rising from 0 to 1. Tied scores share a
    row, so the area under straight lines between rows is `auroc`. Errors as in `auroc`.
    """
    labels, values = labelled(y, scores)
    require_both_classes(labels)
    order = np.argsort(-values, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(values[order])), len(values) - 1)
    caught = np.cumsum(labels[order])[last_of_tie]
    false_alarms = np.cumsum(~labels[order])[last_of_tie]
    return pd.DataFrame(
        {
            "threshold": np.append(np.inf, values[order][last_of_tie]),
            "false_positive_rate": np.append(0.0, false_alarms / (~labels).sum()),
            "true_positive_rate": np.append(0.0, caught / labels.sum()),
        }
    )


def labelled(y: ArrayLike, scores: ArrayLike) -> tuple[Labels, Scores]:
    """Labels and scores as arrays of one length, refused unless boolean and finite."""
    labels, values = as_labels(y), as_scores(scores)
    if values.shape != labels.shape:
        raise InputError(
            f"labels have shape {labels.shape} and scores {values.shape}: give one score per label"
        )
    if not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(values))
        raise InputError(
            f"{len(bad)} of {len(values)} scores are NaN or infinite (first at row {bad[0]}): "
            "look for what made them before evaluating"
        )
    return labels, values


def as_scores(scores: ArrayLike) -> np.ndarray:
    """Scores in double precision; one that is missing in any way is NaN."""
    if isinstance(scores, np.ndarray) and scores.dtype != object:
        return np.asarray(scores, dtype=np.float64)
    given = np.asarray(scores, dtype=object)
    return np.where(pd.isna(given), np.nan, given).astype(np.float64)


def complete(values: ArrayLike, what: str) -> np.ndarray:
    """The values as an array; raises `InputError` with the rows where one is None, NaN or NA.

    numpy itself would make the text "nan" or an object of them, and a sort or a comparison fail.
    """
    given = values if isinstance(values, np.ndarray) else np.asarray(values, dtype=object)
    missing = np.flatnonzero(pd.isna(given)) if given.dtype.kind in "Of" else given[:0]
    if len(missing):
        rows = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise InputError(
            f"{len(missing)} of {given.size} {what} are missing (None, NaN or NA) at rows {rows}: "
            "leave these rows out everywhere, or fill them in"
        )
    return (
        given
        if isinstance(values, np.ndarray) and given.dtype != object
        else np.asarray(given.tolist())
    )


def as_labels(y: ArrayLike) -> Labels:
    """Labels as a boolean vector; anything but True/False or 0/1 is refused, a missing one too."""
    labels = complete(y, "labels")
    if labels.ndim != 1:
        raise InputError(f"labels have shape {labels.shape}: give one label per row, shape (n,)")
    if labels.dtype == np.bool_:
        return labels
    if not set(np.unique(labels).tolist()) <= {0, 1}:
        seen = np.unique(labels)[:5].tolist()
        raise InputError(f"labels must be True/False or 1/0; saw {seen}")
    return labels.astype(np.bool_)


def require_both_classes(labels: Labels) -> None:
    """Refuse labels of one class, with the counts."""
    n_positive = int(labels.sum())
    if n_positive in (0, len(labels)):
        raise InputError(
            f"AUROC needs both classes; saw {n_positive} positive and {len(labels) - n_positive} "
            "negative rows. Add rows of the missing class"
        )
