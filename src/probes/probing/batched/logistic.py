"""Logistic regression at every layer, position, fold and strength, in one call.

The same minimum as scikit-learn's `LogisticRegression`: mean log loss with an L2 penalty of inverse
strength C and a free intercept. One Gram matrix per problem serves all folds and strengths.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.foundation.errors import InputError
from probes.probing.batched.newton import Solved, solve_logistic
from probes.probing.batched.problems import (
    AT_ONCE,
    MEMORY,
    LinearFits,
    Problems,
    checked,
    in_pieces,
    scaling,
)
from probes.probing.batched.spaces import DUAL_UP_TO, Columns, Data, make_space

LOOSE = 3e-3
"""Gradient at which a fit that only serves as a beginning for the folds may end."""
Fitted = tuple[Float[Tensor, "P F S d"], Float[Tensor, "P F S"], Float[Tensor, "P F S"], int]


def fit_logistic(
    X: Sequence[np.ndarray] | Float[np.ndarray, "problem row feature"],
    y: np.ndarray,
    train: Bool[np.ndarray, "fold row"] | None = None,
    *,
    C: Sequence[float] = (1.0,),
    standardise: bool = False,
    tol: float = 1e-6,
    max_steps: int = 1000,
    device: str = "cpu",
    memory: int = MEMORY,
) -> LinearFits:
    """Fit every problem, fold and strength; deterministic on one machine.

    X: activations, or a sequence of (row, feature) arrays of one shape that are read piece by piece.
    y: row, True = positive. train: rows that each fold is fitted on; by default one fold of all rows.
    C: inverse strengths. standardise: by mean and standard deviation of each fold's own rows, as a
        pipeline with `StandardScaler` does; `coef` applies to raw activations all the same. Slower:
        the folds of a problem then share no Gram matrix. Features that do not vary get weight zero.
    tol: on the largest entry of the gradient of the mean loss, as in scikit-learn. Every fit reaches
        it, or `StageError` says how many did not in `max_steps`. At 1e-8 coefficients agree with
        scikit-learn's at the same tolerance to 1e-4 of the largest (held by a test and by
        `probes bench probe`).
    memory: bytes for one piece; problems are done a piece at a time, on as many cores as torch uses.
    Raises `InputError` for NaN, one class in a fold, shapes that differ, or settings out of range.
    """
    problems = checked(X, y, train)
    strengths = tuple(float(c) for c in C)
    if not strengths or not all(0 < c < float("inf") for c in strengths):
        raise InputError(f"C holds positive numbers, for instance (0.01, 1.0); saw {strengths}")
    if not 0 < tol < 1 or max_steps < 1:
        raise InputError(f"tol is between 0 and 1 and max_steps at least 1; saw {tol}, {max_steps}")
    job = _Job(problems, strengths, standardise, tol, max_steps, torch.device(device))
    threads = torch.get_num_threads() if job.device.type == "cpu" else 1
    # One by one where a batch gains nothing but other roundings.
    at_once = 1 if job.device.type == "cpu" and not job.is_dual else AT_ONCE
    chunks = problems.chunks(job.bytes_each, memory, threads, at_once)
    shape = (len(problems), len(problems.train), len(strengths))
    coef, intercept = np.empty((*shape, problems.n_features)), np.empty(shape)
    gradient, n_steps = np.empty(shape), 0
    for chunk, found in in_pieces(job.run, chunks, "logistic probes", threads):
        here = slice(chunk.start, chunk.stop)
        for target, values in zip((coef, intercept, gradient), found[:3], strict=True):
            target[here] = values.cpu().numpy()
        n_steps = max(n_steps, found[3])
    return LinearFits(coef, intercept, strengths, gradient, n_steps)


@dataclasses.dataclass(frozen=True)
class _Job:
    problems: Problems
    C: tuple[float, ...]
    standardise: bool
    tol: float
    max_steps: int
    device: torch.device

    @property
    def is_dual(self) -> bool:
        """Whether the Gram matrix is the smaller Hessian."""
        return len(self.problems.y) <= DUAL_UP_TO * self.problems.n_features

    @property
    def bytes_each(self) -> int:
        """About what one problem takes: rows twice, Gram matrices, per column a factor and what it is of."""
        n, d = len(self.problems.y), self.problems.n_features
        columns = len(self.C) * (1 if self.standardise else len(self.problems.train))
        factor = n if self.is_dual else d
        return 16 * n * d + 12 * n * n + (1 + columns) * (8 * factor * factor + 80 * n)

    def run(self, chunk: range) -> Fitted:
        raw = self.problems.rows(chunk, self.device)
        y = torch.from_numpy(self.problems.y).to(self.device, torch.float64)
        train = torch.from_numpy(self.problems.train).to(self.device)
        penalty = 1 / torch.tensor(self.C, dtype=torch.float64, device=self.device)
        S, F = len(self.C), len(train)
        everywhere = torch.ones(1, len(y), dtype=torch.bool, device=self.device)
        scale = scaling(raw, everywhere[0], standardise=self.standardise)
        data, only = Data(scale.apply(raw)), bool(train.all())
        columns = Columns(y, everywhere.expand(S, -1), penalty)
        whole = self._fit(data, columns, self.tol if only else max(self.tol, LOOSE))
        if only:
            parts = [(*scale.undo(whole.coef, whole.intercept), whole.gradient)] * F
            return _joined(parts, whole.n_steps)
        if not self.standardise:
            columns = Columns(y, train.repeat_interleave(S, 0), penalty.repeat(F))
            solved = self._fit(data, columns, self.tol, whole.repeated(F))
            coef, intercept = scale.undo(solved.coef, solved.intercept)
            shape = (len(raw), F, S)
            return (
                coef.reshape(*shape, -1),
                intercept.reshape(shape),
                solved.gradient.reshape(shape),
                solved.n_steps,
            )
        parts, n_steps = [], 0
        for mask in train:
            scale = scaling(raw, mask, standardise=True)
            own, columns = Data(scale.apply(raw)), Columns(y, mask.expand(S, -1), penalty)
            solved = self._fit(own, columns, self.tol, whole)
            parts.append((*scale.undo(solved.coef, solved.intercept), solved.gradient))
            n_steps = max(n_steps, solved.n_steps)
        return _joined(parts, n_steps)

    def _fit(self, data: Data, columns: Columns, tol: float, start: Solved | None = None) -> Solved:
        space = make_space(data, columns)
        return solve_logistic(space, tol=tol, max_steps=self.max_steps, start=start)


def _joined(parts: Sequence[tuple[Tensor, Tensor, Tensor]], n_steps: int) -> Fitted:
    coef, intercept, gradient = (torch.stack(each, dim=1) for each in zip(*parts, strict=True))
    return coef, intercept, gradient, n_steps
