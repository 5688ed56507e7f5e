"""What every probe asks of its columns: which of them vary at all."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from probes.evaluation.auroc import complete
from probes.foundation.errors import InputError
from probes.probing.direction import Direction
from probes.probing.frozen import Card

CONSTANT = 1e-6


def varying(X: Float[np.ndarray, "row feature"]) -> Bool[np.ndarray, "feature"]:
    """True for features whose range exceeds `CONSTANT` times their largest magnitude.

    The rest is rounding noise (the embedding of one and the same token in batches of different
    shape), which a probe must not blow up into a signal: it may go with the length of the prompt.
    """
    return np.asarray(np.ptp(X, axis=0) > CONSTANT * np.abs(X).max(axis=0))


class BinaryProbe(ClassifierMixin, BaseEstimator):
    """Base of scikit-learn binary classifiers with a `decision_function`.

    The positive class is the second of `classes_`; a score above zero stands for it.
    """

    classes_: np.ndarray

    def _labelled(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """Finite rows in double precision, and their labels, of two classes."""
        rows, labels = validate_data(self, X, known(y), dtype=np.float64)
        check_classification_targets(labels)
        self.classes_ = two_classes(labels)
        return rows, labels

    def _rows(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """Finite rows in double precision, and which of them are positive."""
        rows, labels = self._labelled(X, y)
        return rows, np.asarray(labels == self.classes_[1])

    def _scored(self, X: Any) -> np.ndarray:
        """Finite rows, of as many features as were fitted."""
        check_is_fitted(self)
        rows: np.ndarray = validate_data(self, X, dtype=np.float64, reset=False)
        return rows

    def predict(self, X: Any) -> np.ndarray:
        """The class on whose side of zero each row lies."""
        scores = self.decision_function(X)
        return np.asarray(self.classes_[(scores > 0).astype(int)])

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags


class LinearProbe(BinaryProbe):
    """A binary probe with `coef_` (1, feature) and `intercept_` (1,)."""

    coef_: np.ndarray
    intercept_: np.ndarray

    def _learn(self, coef: np.ndarray, intercept: float) -> None:
        self.coef_ = np.asarray(coef, dtype=np.float64)[None, :]
        self.intercept_ = np.array([intercept], dtype=np.float64)

    def decision_function(self, X: Any) -> Float[np.ndarray, "row"]:
        """Signed score per row."""
        rows = self._scored(X)
        return np.asarray(rows @ self.coef_[0] + self.intercept_[0])

    def freeze(self, card: Card) -> Direction:
        """What was learned, with where it came from."""
        check_is_fitted(self)
        intercept = float(self.intercept_[0])
        return Direction(coef=self.coef_[0], intercept=intercept, **dict(card))


def known(y: Any) -> Any:
    """The labels, refused where one is missing; a column as an array, other forms as they are."""
    if isinstance(y, pd.Series):
        return complete(y, "labels")
    if isinstance(y, list | tuple | np.ndarray) and np.ndim(y) == 1:
        complete(y, "labels")
    return y


def two_classes(labels: np.ndarray) -> np.ndarray:
    """The two classes in order; any other number is an `InputError` with what was seen."""
    classes = np.unique(labels)
    if len(classes) == 1:
        raise InputError(f"a probe needs two classes; y has 1 class: {classes.tolist()}")
    if len(classes) > 2:
        raise InputError(
            "Only binary classification is supported. The type of the target is multiclass: "
            f"{len(classes)} classes, {classes[:5].tolist()}"
        )
    return classes


def midpoint(direction: np.ndarray, rows: np.ndarray, positive: np.ndarray) -> float:
    """The intercept that puts zero midway between the two class means along a direction."""
    means = rows[positive].mean(axis=0) + rows[~positive].mean(axis=0)
    return float(-direction @ means / 2)


def pairs_of(positive: np.ndarray, pairs: Any) -> np.ndarray:
    """(pair, 2): the rows of each pair, the negative one first where their labels differ.

    pairs: row, an id that the two rows of a pair share; a row whose id no other has is in no pair.
    None pairs the rows of each class in order, as far as the rarer class goes. Raises `InputError` for
    an id that more than two rows have, and where there is no pair.
    """
    if pairs is None:
        n = int(min(positive.sum(), (~positive).sum()))
        return np.stack([np.flatnonzero(~positive)[:n], np.flatnonzero(positive)[:n]], axis=1)
    names = complete(pairs, "pairs")
    if names.shape != positive.shape:
        raise InputError(f"{len(positive)} rows and pairs of shape {names.shape}: give one id each")
    known, codes, counts = np.unique(names, return_inverse=True, return_counts=True)
    if counts.max() > 2:
        raise InputError(
            f"pair {str(known[counts.argmax()])!r} has {counts.max()} rows: a pair is two rows, for instance "
            "one prompt with and without its trigger"
        )
    rows = np.lexsort((positive, codes))
    found = rows[counts[codes[rows]] == 2].reshape(-1, 2)
    if len(found) == 0:
        raise InputError(
            f"no two of {len(names)} rows share an id in pairs: give the rows of a pair the same one"
        )
    return found
