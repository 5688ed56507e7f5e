"""The probes of one row per prompt, as scikit-learn's estimators: what they share, then one class each."""

from typing import Any, no_type_check

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from probes.evaluation.auroc import as_labels, complete
from probes.foundation.errors import InputError
from probes.foundation.seeds import stream
from probes.probing.batched.closed import fit_discriminant, fit_ridge
from probes.probing.batched.logistic import fit_logistic
from probes.probing.frozen import Card, Direction, Network, network_scores
from probes.probing.rows import varying


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


class MeanDifferenceProbe(LinearProbe):
    """Score = projection on mean(positive) - mean(negative), zero at the midpoint of the means.

    A scikit-learn binary classifier. shrinkage: None for the plain difference; a number in (0, 1]
    whitens it by the within-class covariance, shrunk so far towards its mean variance.
    After `fit`: `coef_` (1, feature) in activation units, `intercept_` (1,), `classes_`,
    `n_features_in_`. Features that do not vary get weight zero. MacDiarmid et al. (2024); Marks and
    Tegmark (2023).
    """

    shrinkage: float | None

    @no_type_check  # scikit-learn asks that __init__ stores whatever it is given
    def __init__(self, shrinkage: float | None = None) -> None:
        self.shrinkage = shrinkage

    def fit(self, X: Any, y: Any) -> "MeanDifferenceProbe":
        """Needs finite X (row, feature) and y with exactly two classes."""
        rows, positive = self._rows(X, y)
        if self.shrinkage is not None:
            if not 0 < self.shrinkage <= 1:
                raise InputError(f"shrinkage is None or lies in (0, 1]; saw {self.shrinkage}")
            found = fit_discriminant(
                rows[None], positive, shrinkage=(float(self.shrinkage),), prior=False
            )
            self._learn(found.coef[0, 0, 0], float(found.intercept[0, 0, 0]))
            return self
        means = [rows[~positive].mean(axis=0), rows[positive].mean(axis=0)]
        direction = np.where(varying(rows), means[1] - means[0], 0.0)
        self._learn(direction, midpoint(direction, rows, positive))
        return self


class DiscriminantProbe(LinearProbe):
    """The weights of scikit-learn's `LinearDiscriminantAnalysis(solver="lsqr", shrinkage=s)`.

    shrinkage: how far, in (0, 1], the within-class covariance is drawn to its mean variance.
    After `fit`: `coef_` (1, feature), `intercept_` (1,) with the log odds of the classes, `classes_`.
    """

    shrinkage: float

    @no_type_check  # scikit-learn asks that __init__ stores whatever it is given
    def __init__(self, shrinkage: float = 0.1) -> None:
        self.shrinkage = shrinkage

    def fit(self, X: Any, y: Any) -> "DiscriminantProbe":
        """Needs finite X (row, feature) and y with exactly two classes."""
        rows, positive = self._rows(X, y)
        found = fit_discriminant(rows[None], positive, shrinkage=(float(self.shrinkage),))
        self._learn(found.coef[0, 0, 0], float(found.intercept[0, 0, 0]))
        return self


class RidgeProbe(LinearProbe):
    """The weights of scikit-learn's `RidgeClassifier`: targets -1 and 1, penalty alpha on |w|^2.

    After `fit`: `coef_` (1, feature), `intercept_` (1,), `classes_`, `n_features_in_`.
    """

    alpha: float

    @no_type_check  # scikit-learn asks that __init__ stores whatever it is given
    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def fit(self, X: Any, y: Any) -> "RidgeProbe":
        """Needs finite X (row, feature) and y with exactly two classes."""
        rows, positive = self._rows(X, y)
        found = fit_ridge(rows[None], positive, alpha=(float(self.alpha),))
        self._learn(found.coef[0, 0, 0], float(found.intercept[0, 0, 0]))
        return self


class LogisticProbe(LinearProbe):
    """L2-penalised logistic regression on standardised features; scores are log-odds.

    C: inverse strength of the penalty on the standardised weights. max_iter, tol: of the lbfgs
    solver; a fit that does not converge warns as scikit-learn's does. After `fit`: `coef_`
    (1, feature) and `intercept_` (1,) apply to raw activations; features that do not vary get
    weight zero; `classes_`, `n_features_in_`, `n_iter_`.
    """

    C: float
    max_iter: int
    tol: float

    @no_type_check  # scikit-learn asks that __init__ stores whatever it is given
    def __init__(self, C: float = 1.0, max_iter: int = 1000, tol: float = 1e-4) -> None:
        self.C = C
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, X: Any, y: Any) -> "LogisticProbe":
        """Needs finite X (row, feature) and y with exactly two classes."""
        rows, labels = self._labelled(X, y)
        mean, kept = rows.mean(axis=0), varying(rows)
        scale = np.where(kept, rows.std(axis=0), 1.0)
        model = LogisticRegression(C=self.C, max_iter=self.max_iter, tol=self.tol)
        model.fit(np.where(kept, (rows - mean) / scale, 0.0), labels)
        self.coef_ = np.where(kept, model.coef_ / scale, 0.0)
        self.intercept_ = model.intercept_ - self.coef_ @ mean
        self.n_iter_ = model.n_iter_
        return self

    def predict_proba(self, X: Any) -> Float[np.ndarray, "row 2"]:
        """Probabilities of both classes per row."""
        odds = self.decision_function(X)
        positive = 0.5 * (1 + np.tanh(odds / 2))
        return np.column_stack([1 - positive, positive])


class SparseProbe(LinearProbe):
    """Logistic regression on k features, chosen by the standardised difference of class means.

    k: how many, at most all. C: inverse strength of the penalty on standardised features.
    After `fit`: `features_` (k,) in order of difference, `coef_` (1, feature) with zeros elsewhere,
    `intercept_` (1,). Gurnee et al. (2023), whose choice by mean difference this is.
    """

    k: int
    C: float

    @no_type_check  # scikit-learn asks that __init__ stores whatever it is given
    def __init__(self, k: int = 8, C: float = 1.0) -> None:
        self.k = k
        self.C = C

    def fit(self, X: Any, y: Any) -> "SparseProbe":
        """Needs finite X (row, feature) and y with exactly two classes."""
        if self.k < 1:
            raise InputError(f"k is at least 1 feature; saw {self.k}")
        rows, positive = self._rows(X, y)
        gap = rows[positive].mean(axis=0) - rows[~positive].mean(axis=0)
        kept = varying(rows)
        apart = np.where(kept, np.abs(gap) / np.where(kept, rows.std(axis=0), 1.0), 0.0)
        self.features_ = np.argsort(-apart, kind="stable")[: int(self.k)]
        chosen = np.ascontiguousarray(rows[:, self.features_])
        found = fit_logistic(chosen[None], positive, C=(float(self.C),), standardise=True)
        coef = np.zeros(rows.shape[1])
        coef[self.features_] = found.coef[0, 0, 0]
        self._learn(coef, float(found.intercept[0, 0, 0]))
        return self


class PairedPCAProbe(LinearProbe):
    """First principal component of paired differences (LAT); labels only turn its sign.

    Differences are not centred: their common part is what is looked for. A pair's sign counts for
    nothing, so labels of single pairs may be wrong, or the same for both rows. After `fit`: `coef_` (1, feature), a unit vector
    that puts the mean of the positives higher, `intercept_` (1,) midway between the means,
    `explained_`: its share of the differences' squared length. Zou et al. (2023), section 3.1.
    """

    def fit(self, X: Any, y: Any, pairs: Any = None) -> "PairedPCAProbe":
        """Needs finite X (row, feature) and y with two classes. pairs: row, see `pairs_of`."""
        rows, positive = self._rows(X, y)
        members = pairs_of(positive, pairs)
        differences = rows[members[:, 1]] - rows[members[:, 0]]
        total = float((differences**2).sum())
        if total == 0:
            raise InputError("the rows of every pair are alike: there is no difference to look at")
        _, lengths, axes = np.linalg.svd(differences, full_matrices=False)
        direction = axes[0]
        if direction @ (rows[positive].mean(axis=0) - rows[~positive].mean(axis=0)) < 0:
            direction = -direction
        self.explained_ = float(lengths[0] ** 2 / total)
        self._learn(direction, midpoint(direction, rows, positive))
        return self


class ContrastConsistentProbe(LinearProbe):
    """Contrast-consistent search: p(x) near 1 - p(other), and neither near 1/2; labels turn the sign.

    n_tries: random beginnings, of which the lowest loss is kept. max_iter: of L-BFGS, each. seed: of
    the beginnings. After `fit`: `coef_` (1, feature), `intercept_` (1,), `loss_` (mean over pairs, 0 to
    0.25 where every score is 1/2), `n_iter_`. Features that do not vary get weight zero. Burns et al. (2022).
    """

    n_tries: int
    max_iter: int
    seed: int

    @no_type_check  # scikit-learn asks that __init__ stores whatever it is given
    def __init__(self, n_tries: int = 5, max_iter: int = 200, seed: int = 0) -> None:
        self.n_tries = n_tries
        self.max_iter = max_iter
        self.seed = seed

    def fit(self, X: Any, y: Any, pairs: Any = None, side: Any = None) -> "ContrastConsistentProbe":
        """Needs finite X (row, feature), y with two classes and pairs as in `pairs_of`.

        side: row, bool: which of the two phrasings ("yes" or "no") a row is. The mean of each side is
        then taken off, so that the phrasing cannot be what is found. It must not equal the labels.
        """
        if self.n_tries < 1 or self.max_iter < 1:
            raise InputError(
                f"n_tries ({self.n_tries}) and max_iter ({self.max_iter}) are at least 1"
            )
        rows, positive = self._rows(X, y)
        members = pairs_of(positive, pairs)
        centre = rows.mean(axis=0)
        kept = varying(rows)
        shown = np.where(kept, rows - centre, 0.0)
        if side is not None:
            sides = as_labels(side)
            if (sides == positive).all() or (sides != positive).all():
                raise InputError(
                    "side equals the labels in every row: taking its means off would take the labels "
                    "off. Give which phrasing each row is, not which answer is right"
                )
            for one in (sides, ~sides):
                shown[one] -= shown[one].mean(axis=0)
        scale = float(shown.std()) or 1.0
        low, high = (shown[members[:, k]] / scale for k in (0, 1))
        start = stream(int(self.seed), "ccs").normal(size=(int(self.n_tries), rows.shape[1] + 1))
        found = [self._descend(one, low, high) for one in start]
        self.loss_, best, self.n_iter_ = min(found, key=lambda one: one[0])
        direction = np.where(kept, best[:-1] / scale, 0.0)
        intercept = float(best[-1])
        scores = rows @ direction
        if scores[positive].mean() < scores[~positive].mean():
            direction, intercept = -direction, -intercept
        self._learn(direction, intercept - float(centre @ direction))
        return self

    def _descend(
        self, start: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> tuple[float, np.ndarray, int]:
        found = minimize(
            _loss,
            start / len(start) ** 0.5,
            args=(low, high),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": int(self.max_iter), "ftol": 1e-12, "gtol": 1e-7},
        )
        return float(found.fun), np.asarray(found.x), int(found.nit)


def _loss(weights: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean over pairs of inconsistency and unsureness, with a slight penalty; and its gradient."""
    coef, n = weights[:-1], len(low)
    first, second = expit(low @ coef + weights[-1]), expit(high @ coef + weights[-1])
    together, lower = first + second - 1, np.minimum(first, second)
    slight = 1e-3 / len(weights)
    value = float((together**2 + lower**2).mean() + slight * (coef**2).sum())
    from_first = 2 * (together + lower * (first <= second)) * first * (1 - first) / n
    from_second = 2 * (together + lower * (second < first)) * second * (1 - second) / n
    gradient = np.empty_like(weights)
    gradient[:-1] = from_first @ low + from_second @ high + 2 * slight * coef
    gradient[-1] = from_first.sum() + from_second.sum()
    return value, gradient


class MLPProbe(BinaryProbe):
    """One hidden layer on standardised features, by scikit-learn's `MLPClassifier` with L-BFGS.

    n_hidden: units. alpha: penalty on the weights. max_iter: of L-BFGS; a fit that does not converge
    warns as scikit-learn's does. seed: of the first weights. Scores are log-odds. After `fit`:
    `hidden_` (feature, unit) and `hidden_intercept_` (unit,), which apply to raw activations, `output_`
    (unit,), `intercept_`, `classes_`, `n_iter_`. Features that do not vary get weight zero.
    """

    n_hidden: int
    alpha: float
    max_iter: int
    seed: int

    @no_type_check  # scikit-learn asks that __init__ stores whatever it is given
    def __init__(
        self, n_hidden: int = 16, alpha: float = 1.0, max_iter: int = 2000, seed: int = 0
    ) -> None:
        self.n_hidden = n_hidden
        self.alpha = alpha
        self.max_iter = max_iter
        self.seed = seed

    def fit(self, X: Any, y: Any) -> "MLPProbe":
        """Needs finite X (row, feature) and y with exactly two classes."""
        rows, labels = self._labelled(X, y)
        mean, kept = rows.mean(axis=0), varying(rows)
        scale = np.where(kept, rows.std(axis=0), 1.0)
        network = MLPClassifier(
            (self.n_hidden,),
            solver="lbfgs",
            alpha=self.alpha,
            max_iter=self.max_iter,
            random_state=self.seed,
        )
        network.fit(np.where(kept, (rows - mean) / scale, 0.0), labels)
        (first, last), (bias, end) = network.coefs_, network.intercepts_
        self.hidden_ = np.where(kept[:, None], first / scale[:, None], 0.0)
        self.hidden_intercept_ = bias - mean @ self.hidden_
        self.output_, self.intercept_ = last[:, 0], float(end[0])
        self.n_iter_ = network.n_iter_
        return self

    def decision_function(self, X: Any) -> Float[np.ndarray, "row"]:
        """Log-odds of the positive class per row."""
        rows = self._scored(X)
        return network_scores(
            rows, self.hidden_, self.hidden_intercept_, self.output_, self.intercept_
        )

    def freeze(self, card: Card) -> Network:
        """What was learned, with where it came from."""
        check_is_fitted(self)
        return Network(
            hidden=self.hidden_,
            hidden_intercept=self.hidden_intercept_,
            output=self.output_,
            intercept=self.intercept_,
            **dict(card),
        )
