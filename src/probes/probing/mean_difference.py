"""The probe with nothing to tune: the direction from the mean of one class to that of the other."""

from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from probes.foundation.errors import InputError
from probes.probing.features import varying


class MeanDifferenceProbe(ClassifierMixin, BaseEstimator):
    """Score = projection on mean(positive) - mean(negative), zero at the midpoint of the means.

    A scikit-learn binary classifier; the positive class is the second of `classes_`. After `fit`:
    `coef_` (1, feature) in activation units, `intercept_` (1,), `classes_`, `n_features_in_`.
    Features that do not vary get weight zero. MacDiarmid et al. (2024); Marks and Tegmark (2023).
    """

    def fit(self, X: Any, y: Any) -> "MeanDifferenceProbe":
        """Needs finite X (row, feature) and y with exactly two classes."""
        rows, labels = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(labels)
        self.classes_ = two_classes(labels)
        means = [rows[labels == name].mean(axis=0) for name in self.classes_]
        direction = np.where(varying(rows), means[1] - means[0], 0.0)
        self.coef_ = direction[None, :]
        self.intercept_ = np.array([-direction @ (means[0] + means[1]) / 2])
        return self

    def decision_function(self, X: Any) -> Float[np.ndarray, "row"]:
        """Signed score per row; above zero is nearer to the positive mean along the direction."""
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=np.float64, reset=False)
        return np.asarray(rows @ self.coef_[0] + self.intercept_[0])

    def predict(self, X: Any) -> np.ndarray:
        """The class on whose side of the midpoint each row lies."""
        scores = self.decision_function(X)
        return np.asarray(self.classes_[(scores > 0).astype(int)])

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags


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
