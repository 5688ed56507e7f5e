"""`newton` for the columns of one problem on one CPU core: the same steps, in plain numpy.

A problem's arrays stay in the core's cache, nothing depends on which other problems are fitted, and so
neither the number of threads nor the pieces change a bit of the result.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit

from probes.probing.batched.core_spaces import CoreSpace
from probes.probing.batched.newton import LENGTHS, LONGEST, PATIENCE, not_converged

LOOSE = 3e-2
"""Gradient at which a fit that only serves as a beginning for the folds may end."""


@dataclasses.dataclass(frozen=True, eq=False)
class CoreSolved:
    """All columns of one problem at their end; `values` are the scores of rows that a column sees."""

    weights: Float[np.ndarray, "J k"]
    intercept: Float[np.ndarray, "J"]
    values: Float[np.ndarray, "J n"]
    gradient: Float[np.ndarray, "J"]
    n_steps: int
    n_factors: int
    n_whole: int
    """Columns before they were repeated."""

    def repeated(self, times: int) -> "CoreSolved":
        """The same columns several times over, as a beginning for the folds."""
        weights, intercept, values, gradient = (
            np.concatenate([each] * times)
            for each in (self.weights, self.intercept, self.values, self.gradient)
        )
        return CoreSolved(
            weights, intercept, values, gradient, self.n_steps, self.n_factors, self.n_whole
        )


def solve_on_core(
    space: CoreSpace, *, tol: float, max_steps: int, start: CoreSolved | None = None
) -> CoreSolved:
    """Minimise the log loss of every column's rows plus half its penalty times |w|^2.

    The arguments and the error as in `newton.solve_logistic`; `start` is a fit to all rows.
    """
    y, train, penalty = space.columns.y, space.columns.train, space.columns.penalty
    n_train = space.columns.n_train
    if start is None:
        weights = space.start()
        share = (y * train).sum(-1) / n_train
        intercept = np.log(share / (1 - share))
    else:
        weights, intercept = space.begin(start.weights), start.intercept
    scores = space.values(weights) + intercept[:, None]
    probability = expit(scores)
    residual = (y - probability) * train
    force = space.force(weights, residual)
    gradient = _gradient(space, force, residual)
    elsewhere = start is not None
    if start is not None:  # the first step is Newton's at the start's own scores, on fewer rows
        probability = expit(start.values)
        bend = probability * (1 - probability)
        residual = (y - probability + bend * (start.values - scores)) * train
        force = space.force(weights, residual)
    stale, stuck = np.ones(len(penalty), dtype=bool), np.zeros(len(penalty), dtype=int)
    old: tuple[np.ndarray, ...] | None = None
    n_factors = 0
    for n_steps in range(max_steps + 1):
        done = gradient <= tol
        if done.all():
            return CoreSolved(
                weights, intercept, scores, gradient, n_steps, n_factors, len(penalty)
            )
        if n_factors > 0:
            stale &= ~done
        chosen = np.flatnonzero(stale)
        if elsewhere and start is not None and space.factor_whole(bend, start.n_whole):
            n_factors += start.n_whole
        elif len(chosen):
            space.factor(probability * (1 - probability) * train, chosen)
            n_factors += len(chosen)
        along, shift = space.step(force, weights, residual)
        rise = space.values(along)
        pull = residual.sum(-1)
        descent = space.inner(force, along, rise) + pull * shift
        if old is not None and not stale.all():
            was_force, was_pull, was_descent, was_along, was_shift, was_rise = old
            overlap = space.inner(was_force, along, rise) + was_pull * shift
            usable = ~stale & (was_descent > 0)
            turn = (descent - overlap) / np.where(usable, was_descent, np.inf)
            turn = np.maximum(turn, 0)
            along = along + turn[:, None] * was_along
            shift = shift + turn * was_shift
            rise = rise + turn[:, None] * was_rise
        old = None if elsewhere else (force, pull, descent, along, shift, rise)
        if elsewhere:
            probability = expit(scores)
            residual, elsewhere = (y - probability) * train, False
        bent = penalty * space.inner(along, along, rise)
        slope = penalty * space.inner(weights, along, rise)
        moved = (rise + shift[:, None]) * train
        at_zero = slope - np.vecdot(residual, moved)
        length, probability = _length(scores, moved, y, slope, bent, at_zero, done)
        weights = weights + length[:, None] * along
        intercept = intercept + length * shift
        scores = scores + length[:, None] * moved
        residual = (y - probability) * train
        force = space.force(weights, residual)
        before, gradient = gradient, _gradient(space, force, residual)
        stale = gradient > space.gain * before
        stuck = np.where((gradient > 0.25 * before) & (gradient > tol), stuck + stale, 0)
        if (stuck >= PATIENCE).any() and space.refine():
            stale, stuck = np.ones_like(stale), np.zeros_like(stuck)
    raise not_converged(gradient, tol, max_steps)


def _length(
    scores: Float[np.ndarray, "J n"],
    moved: Float[np.ndarray, "J n"],
    y: Float[np.ndarray, "n"],
    slope: Float[np.ndarray, "J"],
    bent: Float[np.ndarray, "J"],
    at_zero: Float[np.ndarray, "J"],
    done: Bool[np.ndarray, "J"],
) -> tuple[Float[np.ndarray, "J"], Float[np.ndarray, "J n"]]:
    """How far to go, as `newton.best_length`, and the probabilities there; nowhere for what is done."""
    low, high = np.zeros_like(slope), np.full_like(slope, LONGEST)
    length = np.where(done, 0.0, 1.0)
    small = 0.1 * np.abs(at_zero)
    for _ in range(LENGTHS):
        p = expit(scores + length[:, None] * moved)
        first = np.vecdot(p - y, moved) + slope + length * bent
        enough = done | (np.abs(first) <= small)
        if enough.all():
            return length, p
        second = np.vecdot(p * (1 - p), moved * moved) + bent
        low, high = np.where(first < 0, length, low), np.where(first < 0, high, length)
        found = length - first / np.where(second > 0, second, np.inf)
        inside = (found > low) & (found < high)
        length = np.where(enough, length, np.where(inside, found, (low + high) / 2))
    length = np.where(enough, length, low)
    return length, expit(scores + length[:, None] * moved)


def _gradient(
    space: CoreSpace, force: np.ndarray, residual: Float[np.ndarray, "J n"]
) -> Float[np.ndarray, "J"]:
    largest = np.maximum(space.gradient(force), np.abs(residual.sum(-1)))
    return np.asarray(largest / space.columns.n_train)
