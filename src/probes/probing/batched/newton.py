"""Many penalised logistic regressions in lockstep: conjugate directions under an old Newton factor.

A Hessian is factored again only where the last steps with the old one gained little; between factors,
directions are conjugate and every step has the length that is best along it, which costs no product
with the data. Every column ends by its own gradient in double precision, never by a number of steps.
"""

import dataclasses

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.foundation.errors import StageError
from probes.probing.batched.spaces import Space

PATIENCE = 4
"""So many of these in a row, each with a new factor, ask for factors in double precision."""
LENGTHS, LONGEST = 40, 64.0
"""Trials of the length along one direction, and the longest of them."""


@dataclasses.dataclass(frozen=True)
class Solved:
    """All columns at their end: weights in their space and as coefficients, intercepts, scores of rows."""

    weights: Float[Tensor, "P J k"]
    intercept: Float[Tensor, "P J"]
    values: Float[Tensor, "P J n"]
    gradient: Float[Tensor, "P J"]
    n_steps: int
    n_factors: int
    coef: Float[Tensor, "P J d"]

    def repeated(self, times: int) -> "Solved":
        """The same columns several times over, as a beginning for the folds."""
        names = ("weights", "intercept", "values", "gradient", "coef")
        tensors = {name: getattr(self, name) for name in names}
        again = {name: t.repeat(1, times, *[1] * (t.ndim - 2)) for name, t in tensors.items()}
        return dataclasses.replace(self, **again)


def solve_logistic(
    space: Space,
    *,
    tol: float,
    max_steps: int,
    start: Solved | None = None,
) -> Solved:
    """Minimise the log loss of every column's rows plus half its penalty times |w|^2.

    tol: on the largest entry of the gradient of the mean loss, intercept included, as scikit-learn's
    lbfgs has it. start: a fit to more rows, to begin at. Raises `StageError` where `max_steps` are
    not enough.
    """
    y, train, n_train = space.columns.y, space.columns.train, space.columns.n_train
    penalty = space.columns.penalty
    if start is None:
        weights = space.start()
        share = (y * train).sum(-1) / n_train
        intercept = torch.logit(share).expand(weights.shape[:2]).clone()
    else:
        weights, intercept = space.begin(start.weights), start.intercept
    linear = space.values(weights)
    scores = linear + intercept[..., None]
    residual = (y - torch.sigmoid(scores)) * train
    force = space.force(weights, residual)
    gradient = _gradient(space, force, residual)
    at = scores
    if start is not None:
        at = start.values
        probability = torch.sigmoid(at)
        bend = probability * (1 - probability)
        space.share(bend)
        residual = (y - probability + bend * (at - scores)) * train
        force = space.force(weights, residual)
    stale = torch.ones_like(intercept, dtype=torch.bool)
    stuck = torch.zeros_like(intercept)
    old: tuple[Tensor, ...] | None = None
    n_factors = 0
    for n_steps in range(max_steps + 1):
        if bool((gradient <= tol).all()):
            return Solved(
                weights, intercept, scores, gradient, n_steps, n_factors, space.coef(weights)
            )
        if n_factors > 0:
            stale &= gradient > tol
        problem, column = stale.nonzero(as_tuple=True)
        if len(problem):
            probability = torch.sigmoid(at)
            space.factor(probability * (1 - probability) * train, problem, column)
            n_factors += len(problem)
        along, shift = space.step(force, weights, residual)
        rise = space.values(along)
        pull = residual.sum(-1)
        descent = space.inner(force, along, rise) + pull * shift
        if old is None:
            turn = torch.zeros_like(descent)
        else:
            was_force, was_pull, was_descent, was_along, was_shift, was_rise = old
            overlap = space.inner(was_force, along, rise) + was_pull * shift
            turn = ((descent - overlap) / was_descent).clamp(min=0).nan_to_num(0.0, 0.0, 0.0)
            turn = torch.where(stale, 0.0, turn)
            along = along + turn[..., None] * was_along
            shift = shift + turn * was_shift
            rise = rise + turn[..., None] * was_rise
        along, shift, rise = _rested(gradient <= tol, along, shift, rise)
        if at is scores:
            old = (force, pull, descent, along, shift, rise)
        at = scores
        bent = penalty * space.inner(along, along, rise)
        slope = penalty * space.inner(weights, along, rise)
        moved = (rise + shift[..., None]) * train
        length = best_length(scores, moved, y, slope, bent, gradient <= tol)
        weights = weights + length[..., None] * along
        intercept = intercept + length * shift
        linear = linear + length[..., None] * rise
        scores = linear + intercept[..., None]
        residual = (y - torch.sigmoid(scores)) * train
        force = space.force(weights, residual)
        before, gradient = gradient, _gradient(space, force, residual)
        stale = gradient > space.gain * before
        stuck = torch.where(stale & (gradient > tol), stuck + 1, 0)
        if bool((stuck >= PATIENCE).any()) and space.refine():
            stale, stuck = torch.ones_like(stale), torch.zeros_like(stuck)
        at = scores
    raise not_converged(gradient.cpu().numpy(), tol, max_steps)


def _rested(
    done: Bool[Tensor, "P J"],
    along: Float[Tensor, "P J k"],
    shift: Float[Tensor, "P J"],
    rise: Float[Tensor, "P J n"],
) -> tuple[Tensor, Tensor, Tensor]:
    """No step for a column at its end, while others of its batch go on.

    What is left of its gradient is rounding; the quotient of two such numbers would lead anywhere.
    """
    return (
        torch.where(done[..., None], 0.0, along),
        torch.where(done, 0.0, shift),
        torch.where(done[..., None], 0.0, rise),
    )


def not_converged(gradient: np.ndarray, tol: float, max_steps: int) -> StageError:
    """What to raise when the steps were used up."""
    return StageError(
        f"{int((gradient > tol).sum())} of {gradient.size} fits did not converge in {max_steps} "
        f"steps: the largest gradient is {float(gradient.max()):.2g}, asked for {tol:g}. Raise the "
        "penalty (a smaller C), standardise the features, or raise tol"
    )


def best_length(
    scores: Float[Tensor, "P J n"],
    moved: Float[Tensor, "P J n"],
    y: Float[Tensor, "n"],
    slope: Float[Tensor, "P J"],
    bent: Float[Tensor, "P J"],
    done: Bool[Tensor, "P J"],
) -> Float[Tensor, "P J"]:
    """How far to go along each direction: Newton in one dimension, kept between sure bounds.

    moved: what a step of length one adds to the scores (zero for rows that do not count). slope, bent:
    first and second derivative of the penalty along it. The loss is convex, so the sign of its slope
    says on which side the minimum lies; the slope is brought to a tenth or less, except where `done`.
    """
    low, high = torch.zeros_like(slope), torch.full_like(slope, LONGEST)
    length = torch.ones_like(slope)
    at_zero = ((torch.sigmoid(scores) - y) * moved).sum(-1) + slope
    for _ in range(LENGTHS):
        p = torch.sigmoid(scores + length[..., None] * moved)
        first = ((p - y) * moved).sum(-1) + slope + length * bent
        enough = done | (first.abs() <= 0.1 * at_zero.abs())
        if bool(enough.all()):
            break
        second = (p * (1 - p) * moved.square()).sum(-1) + bent
        low, high = torch.where(first < 0, length, low), torch.where(first < 0, high, length)
        found = length - first / second
        inside = (found > low) & (found < high)
        length = torch.where(enough, length, torch.where(inside, found, (low + high) / 2))
    return torch.where(enough, length, low)


def _gradient(space: Space, force: Tensor, residual: Tensor) -> Tensor:
    largest = torch.maximum(space.gradient(force), residual.sum(-1).abs())
    return largest / space.columns.n_train
