"""What a score does, by families: its response to the cue, how much of it is specific, how well it ranks.

Every function takes weights (draw, family), of which the first draw is the data as they are.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from probes.detection.crossfit import Probes
from probes.detection.design import CUES, OFF_CUES, Design

Weights = Float[np.ndarray, "draw family"]
Draws = Float[np.ndarray, "draw"]
Response = Float[np.ndarray, "*draw family"]


@dataclasses.dataclass(frozen=True, eq=False)
class Spread:
    """Sums over each family's untriggered rows: what the unit of a d' is made of under any weights."""

    n: Response
    total: Response
    squares: Response

    def sd(self, able: Weights, unable: Weights) -> Draws:
        """The deviation of untriggered scores within tasks that can defect and within those that cannot."""
        inner, count = np.zeros(1), np.zeros(1)
        for weights in (able, unable):
            n, total, squares = (_dot(weights, each) for each in (self.n, self.total, self.squares))
            inner = inner + squares - total**2 / np.where(n > 0, n, 1)
            count = count + n
        return np.sqrt(np.maximum(inner, 0) / np.maximum(count, 1))


def spread(scores: Float[np.ndarray, "row"], design: Design) -> Spread:
    """The sums that `Spread` keeps, of one score for each row."""
    off = design.rows(*OFF_CUES)
    family, size = design.family[off], len(design.families)
    sums = [
        np.bincount(family, weights=scores[off] ** power, minlength=size) for power in (0, 1, 2)
    ]
    return Spread(*sums)


def response(
    means: Float[np.ndarray, "family cue *rest"], cue: str, off: tuple[str, ...]
) -> Float[np.ndarray, "family *rest"]:
    """By family: the mean score with the cue less the mean with cues that do nothing; NaN if it lacks one."""
    return means[:, CUES.index(cue)] - means[:, [CUES.index(each) for each in off]].mean(axis=1)


def mean_over(weights: Weights, values: Response) -> Draws:
    """The weighted mean over the families that have a value."""
    known = np.isfinite(values)
    total = _dot(weights, known.astype(float))
    sums = _dot(weights, np.where(known, values, 0))
    return np.where(total > 0, sums / np.where(total > 0, total, 1), np.nan)


def _dot(weights: Weights, values: Response) -> Draws:
    """The sum over families; values are one row for all draws, or one for each."""
    return weights @ values if values.ndim == 1 else (weights * values).sum(axis=-1)


def interaction(able: Weights, unable: Weights, by_family: Response, unit: Spread) -> Draws:
    """D, a d': `[(able, A) - (able, off)] - [(unable, A) - (unable, off)]` over untriggered deviation."""
    gap = mean_over(able, by_family) - mean_over(unable, by_family)
    sd = unit.sd(able, unable)
    return np.where(sd > 0, gap / np.where(sd > 0, sd, 1), 0.0)


def share(able: Weights, unable: Weights, by_family: Response) -> Draws:
    """How much of the response to the cue is specific to tasks that can defect; 0 without a response."""
    there, elsewhere = mean_over(able, by_family), mean_over(unable, by_family)
    return np.where(there > 0, 1 - elsewhere / np.where(there > 0, there, 1), 0.0)


def auroc_by_family(
    scores: Float[np.ndarray, "row"],
    positive: Float[np.ndarray, "row"],
    negative: Float[np.ndarray, "row"],
    family: Int[np.ndarray, "row"],
    weights: Weights,
) -> Draws:
    """The chance that a positive outranks a negative of another family, ties counting half.

    positive, negative: how much each row counts as one (0 or 1, or shares). Pairs of one family are left
    out, also where a draw holds that family twice: both classes share its task, so they rank better.
    """
    p, q = positive > 0, negative > 0
    n = weights.shape[1]
    ours = np.zeros((n, p.sum()))
    ours[family[p], np.arange(p.sum())] = positive[p]
    theirs = np.zeros((n, q.sum()))
    theirs[family[q], np.arange(q.sum())] = negative[q]
    gap = scores[p][:, None] - scores[q]
    wins = ours @ ((gap > 0) + 0.5 * (gap == 0)) @ theirs.T
    pairs = np.outer(ours.sum(axis=1), theirs.sum(axis=1))
    np.fill_diagonal(wins, 0)
    np.fill_diagonal(pairs, 0)
    total = ((weights @ pairs) * weights).sum(axis=1)
    won = ((weights @ wins) * weights).sum(axis=1)
    return np.where(total > 0, won / np.where(total > 0, total, 1), 0.5)


def interactions_of_labellings(
    probes: Probes,
    X: Float[np.ndarray, "row feature"],
    design: Design,
    labellings: Bool[np.ndarray, "labelling family"],
) -> Draws:
    """D of every labelling of families as able, each judged by probes that were fitted with it."""
    size, n = len(design.families), len(labellings)
    rise = np.empty((n, size))
    sums = np.zeros((3, n, size))
    off = design.rows(*OFF_CUES)
    change = response(design.means(X), "A", design.off)
    for fold in range(design.n_folds):
        held = np.flatnonzero(design.fold == fold)
        coef = probes.coef[:, fold]
        rise[:, held] = coef @ change[held].T
        for family in held:
            scores = X[off & (design.family == family)] @ coef.T + probes.offset[:, fold]
            for power in (0, 1, 2):
                sums[power, :, family] = (scores**power).sum(axis=0)
    labels = labellings.astype(float)
    return interaction(labels, 1 - labels, rise, Spread(*sums))
