"""Take a concept out of activations, so that no linear probe can find it there: LEACE."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from probes.foundation.errors import InputError
from probes.probing.estimators import known


class LeaceEraser(TransformerMixin, BaseEstimator):
    """The least change of X after which no linear classifier beats chance, by `concept-erasure`.

    The library shrinks the covariance unless told otherwise, which changes X by more than the least,
    and leaves correlations below 0.01 alone; both are switched off.

    After `fit`: `proj_left_` (feature, rank), `proj_right_` (rank, feature) and `bias_` (feature,), such
    that erased = x - proj_left_ @ (proj_right_ @ (x - bias_)). Belrose et al. (2023).
    """

    def fit(self, X: Any, y: Any) -> "LeaceEraser":
        """Needs finite X (row, feature) and y with two classes or more."""
        from concept_erasure import LeaceFitter

        rows, labels = validate_data(self, X, known(y), dtype=np.float64)
        self.classes_ = np.unique(labels)
        if len(self.classes_) < 2:
            raise InputError(
                f"erasure needs two classes or more; y has 1 class: {self.classes_.tolist()}"
            )
        concept = torch.from_numpy((labels[:, None] == self.classes_).astype(np.float64))
        eraser = LeaceFitter.fit(
            torch.from_numpy(rows.copy()), concept, shrinkage=False, svd_tol=1e-8
        ).eraser
        self.proj_left_ = eraser.proj_left.numpy()
        self.proj_right_ = eraser.proj_right.numpy()
        self.bias_ = rows.mean(axis=0) if eraser.bias is None else eraser.bias.numpy()
        return self

    def transform(self, X: Any) -> Float[np.ndarray, "row feature"]:
        """The rows with the concept taken out."""
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=np.float64, reset=False)
        return np.asarray(rows - (rows - self.bias_) @ self.proj_right_.T @ self.proj_left_.T)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags
