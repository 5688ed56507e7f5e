"""Probes of one estimator, each fitted without the families that it judges."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from probes.detection.design import CUES, FIT_CUES, OFF_CUES, Design
from probes.foundation.errors import InputError, unknown

if TYPE_CHECKING:
    from probes.probing.frozen import FrozenProbe

ESTIMATORS = ("discriminant", "mean_difference", "logistic")
SWEPT = ("whitened", "ridge", "paired_pca", "contrast_consistent", "sparse", "mlp")
"""Further estimators, each fitted fold by fold as in `probing.sweep`."""
CLOSED = ("discriminant", "mean_difference")
PRIMARY = "discriminant"
SHRINKAGE = 0.5
CUE_WEIGHT = 4.0
OTHERS = ("C", "D", "none")


@dataclasses.dataclass(frozen=True, eq=False)
class Probes:
    """One linear score for each labelling of families and each fold; labelling 0 is the true one."""

    coef: Float[np.ndarray, "labelling fold feature"]
    offset: Float[np.ndarray, "labelling fold"]

    def scores(
        self, X: Float[np.ndarray, "row feature"], design: Design
    ) -> Float[np.ndarray, "row"]:
        """Every row by the probe that never saw its family."""
        fold = design.fold[design.family]
        return np.einsum("rd,rd->r", X, self.coef[0][fold]) + self.offset[0][fold]

    @property
    def true(self) -> "Probes":
        """Those of the true labelling alone."""
        return Probes(self.coef[:1], self.offset[:1])


@dataclasses.dataclass(frozen=True, eq=False)
class Networks:
    """A score for each fold that is no direction; zero and unit are those of its untriggered fit rows."""

    nets: "tuple[FrozenProbe, ...]"
    zero: Float[np.ndarray, "fold"]
    unit: Float[np.ndarray, "fold"]

    def scores(
        self, X: Float[np.ndarray, "row feature"], design: Design
    ) -> Float[np.ndarray, "row"]:
        """Every row by the network that never saw its family."""
        fold = design.fold[design.family]
        raw = np.stack([net.raw_scores(np.asarray(X, dtype=np.float64)) for net in self.nets])
        return (raw[fold, np.arange(len(X))] - self.zero[fold]) / self.unit[fold]

    @property
    def true(self) -> "Networks":
        return self


Labellings = Bool[np.ndarray, "labelling family"]
Means = Float[np.ndarray, "family cue feature"]
Gap = Float[np.ndarray, "labelling fold feature"]


def crossfit(
    X: Float[np.ndarray, "row feature"],
    design: Design,
    estimator: str = PRIMARY,
    labellings: Labellings | None = None,
) -> Probes | Networks:
    """One probe for each fold, fitted on the cells {A, C, D, none} x {able, unable} of the other families.

    Every cell counts the same, and in it every family. discriminant: Fisher's, of the double difference
    `gap = [(able, A) - (able, others)] - [(unable, A) - (unable, others)]`, others being C, D and none.
    What must not move the score is its noise: prompts within a cell, families, and what cues do on tasks
    that cannot defect. Its covariance is drawn by `SHRINKAGE` to its diagonal, so that the unit of a
    feature does not matter and a sink of huge variance drowns nothing. mean_difference: A-able less
    the mean of the other cells. logistic: A-able against all other rows, standardised. Others are
    fitted on these rows as in `probing.sweep`; those that compare pairs get pairs of the tasks that can
    defect, with A and without.
    Scores of all folds have one scale: zero at the mean of untriggered rows. Without unable tasks, or
    without the others, the differences are those that the design has.
    labellings: other namings of families as able, for the permutation; for the first two alone.
    """
    labels = design.able[None] if labellings is None else labellings
    return _fitted(X, design, estimator, labels, _train(design))


def fit_whole(
    X: Float[np.ndarray, "row feature"], design: Design, estimator: str = PRIMARY
) -> tuple[Float[np.ndarray, "feature"], float]:
    """Weights and intercept of the probe of all families: to read other prompts with, never to be judged.

    Scores are in deviations of untriggered prompts; only the mean difference keeps its length, the distance
    of the means, so that it can be added to activations.
    """
    every = np.ones((1, len(design.able)), dtype=bool)
    found = _fitted(X, design, estimator, design.able[None], every)
    if isinstance(found, Networks):
        raise InputError(f"{estimator} has no direction: ask for one of a linear estimator")
    coef = np.asarray(found.coef[0, 0], dtype=np.float64)
    if estimator == "mean_difference":
        scale = float(coef @ _mean_difference(design.means(X), design.able[None], every)[0, 0])
    else:
        scale = 1 / (float((X[design.rows(*OFF_CUES)] @ coef).std()) or 1.0)
    return coef * scale, float(found.offset[0, 0]) * scale


def _fitted(
    X: np.ndarray, design: Design, estimator: str, labels: Labellings, train: np.ndarray
) -> Probes | Networks:
    if estimator not in (*ESTIMATORS, *SWEPT):
        raise unknown("estimator", estimator, (*ESTIMATORS, *SWEPT))
    means = design.means(np.asarray(X, dtype=np.float64))
    if estimator not in CLOSED:
        swept = _swept(X, design, estimator, train)
        if isinstance(swept, Networks):
            return swept
        coef = swept
    else:
        gap = _double_difference(means, labels, train)
        if estimator == "mean_difference":
            coef = gap = _mean_difference(means, labels, train)
        else:
            coef = _discriminant(X, design, means, labels, train, gap)
        length = np.sqrt(np.maximum(np.einsum("lkd,lkd->lk", coef, gap), 0))
        coef = coef / np.where(length > 0, length, 1)[..., None]
    return Probes(coef, _offsets(coef, means, train))


def crossfit_cue(X: Float[np.ndarray, "row feature"], design: Design) -> Probes:
    """Probes that tell cue A from C and D, on tasks of both kinds: for the gate of the twin's cue."""
    train = _train(design)
    means = design.means(np.asarray(X, dtype=np.float64))
    cue = _of(means, "A") - np.nanmean([_of(means, "C"), _of(means, "D")], axis=0)
    gap = np.stack([np.nanmean(cue[kept], axis=0) for kept in train])[None]
    coef = _discriminant(X, design, means, np.ones((1, len(design.able)), bool), train, gap)
    return Probes(coef, _offsets(coef, means, train))


def _train(design: Design) -> Bool[np.ndarray, "fold family"]:
    train = np.arange(design.n_folds)[:, None] != design.fold
    if design.n_folds < 2:
        raise InputError(
            "one task family only: give at least two that can defect and two that cannot"
        )
    return train


def _of(means: Means, cue: str) -> Float[np.ndarray, "family feature"]:
    return means[:, CUES.index(cue)]


def _others(means: Means) -> Float[np.ndarray, "family feature"]:
    return _mean(means[:, [CUES.index(cue) for cue in OTHERS]], axis=1)


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean of what is there; NaN, without a warning, where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=axis)
    return np.where(known, values, 0).sum(axis=axis) / np.where(count > 0, count, np.nan)


def _over(
    values: Float[np.ndarray, "family feature"], labels: Labellings, train: np.ndarray
) -> Gap | None:
    """The mean over the fitted families that are so labelled and have a value; None if some fold has none."""
    kept = train[None] & labels[:, None] & np.isfinite(values[:, 0])
    total = kept.sum(axis=-1, keepdims=True)
    return None if total.min() == 0 else (kept / total) @ np.nan_to_num(values)


def _double_difference(means: Means, labels: Labellings, train: np.ndarray) -> Gap:
    rise = _of(means, "A") - _others(means)
    here, elsewhere = _over(rise, labels, train), _over(rise, ~labels, train)
    if here is not None:
        return here if elsewhere is None else here - elsewhere
    raise InputError(
        "a probe needs tasks that can defect, each with cue A and with another or none"
    )


def _mean_difference(means: Means, labels: Labellings, train: np.ndarray) -> Gap:
    cells = [
        (cue, kind) for cue in FIT_CUES for kind in (True, False) if (cue, kind) != ("A", True)
    ]
    others = [_over(_of(means, cue), labels if kind else ~labels, train) for cue, kind in cells]
    own = _over(_of(means, "A"), labels, train)
    return own - np.mean([each for each in others if each is not None], axis=0)


def _discriminant(
    X: np.ndarray, design: Design, means: Means, labels: Labellings, train: np.ndarray, gap: Gap
) -> Gap:
    """`noise^-1 gap`. Only the part of the cues depends on the labelling, and it has few dimensions."""
    others = _others(means)
    rows = design.rows(*FIT_CUES) & np.isfinite(others[design.family, 0])
    family, rest_of = design.family[rows], X[rows] - others[design.family[rows]]
    which = design.cue[rows] == np.unique(design.cue[rows])[:, None]
    known = [_over(_of(means, cue), ~labels, train) for cue in FIT_CUES]
    cues = np.stack([each for each in known if each is not None] or [gap], axis=2)
    cues = cues - cues.mean(axis=2, keepdims=True)
    coef = np.empty_like(gap)
    size = max(float(np.abs(rest_of).max(initial=0)), 1e-300)  # what is less is rounding, not noise
    for fold, kept in enumerate(train):
        mine = kept[family]
        there = which[:, mine] / np.maximum(which[:, mine].sum(axis=1, keepdims=True), 1)
        left = rest_of[mine] - which[:, mine].T @ (there @ rest_of[mine])
        base = others[kept & np.isfinite(others[:, 0])]
        Z = np.concatenate([left / len(left) ** 0.5, (base - base.mean(axis=0)) / len(base) ** 0.5])
        scale = np.sqrt((Z**2).sum(axis=0))
        scale = np.where(scale > 1e-9 * size, scale, np.inf)
        U = cues[:, fold] * (CUE_WEIGHT * (1 - SHRINKAGE) / cues.shape[2]) ** 0.5 / scale
        right = np.concatenate([gap[:, fold, None] / scale, U], axis=1)
        solved = _solve(Z / scale, right.reshape(-1, right.shape[-1]).T).T.reshape(right.shape)
        first, rest = solved[:, 0], solved[:, 1:]
        inner = np.eye(U.shape[1]) + U @ rest.transpose(0, 2, 1)
        pull = np.linalg.solve(inner, U @ first[..., None])[..., 0]
        coef[:, fold] = (first - np.einsum("lc,lcd->ld", pull, rest)) / scale
    return coef


def _solve(Z: np.ndarray, right: np.ndarray) -> np.ndarray:
    """`((1 - s) Z'Z + s I)^-1 right`, by the smaller of the two Gram matrices."""
    (n, d), s = Z.shape, SHRINKAGE
    if d <= n:
        return np.linalg.solve((1 - s) * Z.T @ Z + s * np.eye(d), right)
    inner = np.linalg.solve((1 - s) * Z @ Z.T + s * np.eye(n), (1 - s) * Z @ right)
    return np.asarray((right - Z.T @ inner) / s)


def _swept(X: np.ndarray, design: Design, estimator: str, train: np.ndarray) -> Gap | Networks:
    """The sweep's own fits, scaled so that untriggered fit rows have deviation one."""
    from probes.probing.frozen import Card, Direction
    from probes.probing.sweep import ESTIMATORS as FITS
    from probes.probing.sweep import Task

    X, off = np.asarray(X, dtype=np.float64), design.rows(*OFF_CUES)
    masks = train[:, design.family] & design.rows(*FIT_CUES)
    y = design.rows("A", able=True)
    card = Card(estimator=estimator, site="", identity=None, fitted_on="", seed=0)
    task = Task({"": X}, y, masks, card, _pairs(design), "cpu")
    ((_, found),) = FITS[estimator].fitted(task)
    calm = [each.raw_scores(X[mask & off]) for each, mask in zip(found, masks, strict=True)]
    unit = np.array([scores.std() or 1.0 for scores in calm])
    directions = [each.coef for each in found if isinstance(each, Direction)]
    if len(directions) == len(found):
        return np.asarray((np.stack(directions) / unit[:, None])[None])
    return Networks(tuple(found), np.array([scores.mean() for scores in calm]), unit)


def _pairs(design: Design) -> Int[np.ndarray, "row"]:
    """For each family that can defect its k-th prompt with A and its k-th without a live cue share an id."""
    pairs = -1 - np.arange(len(design.family))
    for family in np.flatnonzero(design.able) if design.off else ():
        own = design.family == family
        with_a, without = (np.flatnonzero(own & design.rows(cue)) for cue in ("A", design.off[-1]))
        n = min(len(with_a), len(without))
        pairs[with_a[:n]] = pairs[without[:n]] = with_a[:n]
    return pairs


def _offsets(coef: Gap, means: Means, train: np.ndarray) -> Float[np.ndarray, "labelling fold"]:
    off = _mean(means[:, [CUES.index(cue) for cue in OFF_CUES]], axis=1)
    centre = np.stack([_mean(off[kept], axis=0) for kept in train])
    return -np.einsum("lkd,kd->lk", coef, centre)
