"""`newton` for the columns of one problem on one CPU core: the same steps, in plain numpy."""

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.special import expit

from probes.probing.batched.newton import LENGTHS, LONGEST, PATIENCE, not_converged
from probes.probing.batched.spaces import DUAL_UP_TO, FLOOR, must_be_refined

MOST = 0.5
"""Share of the rows that a fold may hold out; beyond, a factor of its own rows is cheaper."""


class HeldOut:
    """Newton's steps of columns whose Hessians are parts of few larger ones.

    hessians: of all rows, one per strength, scaled by root and in single precision. Column j has
    strength `j % len(hessians)`. `works` is False where a Hessian has no factor in this precision.
    """

    def __init__(
        self,
        hessians: Float[np.ndarray, "S n n"],
        root: Float[np.ndarray, "J n"],
        train: Float[np.ndarray, "J n"],
    ) -> None:
        S, n = hessians.shape[:2]
        self._root = root * train
        self._upside = train / root
        out = train == 0
        counts = out.sum(-1)
        k = int(counts.max())
        index = np.argsort(train, axis=-1, kind="stable")[:, :k]
        there = (np.arange(k) < counts[:, None]).astype(np.float32)
        self._flat = index + n * np.arange(len(train))[:, None]
        factor, info = torch.linalg.cholesky_ex(torch.from_numpy(hessians))
        self.works = not bool(info.any())
        if not self.works:
            return
        self._inverse = torch.cholesky_inverse(factor).numpy()
        of = np.arange(len(train)) % S
        across = self._inverse[of[:, None], index] * there[:, :, None]
        held = np.take_along_axis(across, index[:, None], 2) * there[:, None]
        held.reshape(len(train), -1)[:, :: k + 1] += 1 - there
        small, info = torch.linalg.cholesky_ex(torch.from_numpy(held))
        self.works = not bool(info.any())
        if self.works:
            taken = torch.cholesky_solve(torch.from_numpy(across), small)
            self._taken = np.ascontiguousarray(taken.numpy())
            self._level = self._solve(self._root) * self._root
            self._total = self._level.sum(-1)

    def _solve(self, right: Float[np.ndarray, "J n"]) -> Float[np.ndarray, "J n"]:
        """By the inverse of each column's own part; `right` is zero at rows that are held out."""
        columns, S = right.astype(np.float32), len(self._inverse)
        found = np.empty_like(columns)
        for s, inverse in enumerate(self._inverse):
            np.matmul(columns[s::S], inverse, out=found[s::S])
        found -= np.matmul(found.take(self._flat)[:, None], self._taken)[:, 0]
        return found.astype(np.float64)

    def step(
        self, force: Float[np.ndarray, "J n"], weights: Float[np.ndarray, "J n"]
    ) -> tuple[Float[np.ndarray, "J n"], Float[np.ndarray, "J"]]:
        """As `CoreDual.step`."""
        free = self._solve(force * self._upside) * self._root
        shift = (weights.sum(-1) + free.sum(-1)) / self._total
        return free - shift[:, None] * self._level, shift


Rows = Float[np.ndarray, "J n"]
Weights = Float[np.ndarray, "J k"]
Each = Float[np.ndarray, "J"]


@dataclasses.dataclass(frozen=True, eq=False)
class CoreColumns:
    """What each column fits: y in {0, 1}, 1.0 at the rows it may see, the strength of its penalty."""

    y: Float[np.ndarray, "n"]
    train: Rows
    penalty: Each

    @cached_property
    def n_train(self) -> Each:
        return self.train.sum(-1)

    @cached_property
    def everywhere(self) -> bool:
        return bool(self.train.all())

    @cached_property
    def index(self) -> Int[np.ndarray, "J m"]:
        """The rows of each column in order, filled up to the longest with rows that are not its own."""
        return np.argsort(self.train == 0, axis=-1, kind="stable")[:, : int(self.n_train.max())]

    @cached_property
    def flat(self) -> Int[np.ndarray, "J m"]:
        """The same places in an array (J, n), counted through."""
        return self.index + self.train.shape[1] * np.arange(len(self.train))[:, None]

    @cached_property
    def mask_of(self) -> list[int]:
        """Columns that see the same rows have the same number."""
        found = np.unique(self.train, axis=0, return_inverse=True)[1].ravel()
        return [int(number) for number in found]


@dataclasses.dataclass(frozen=True, eq=False)
class CoreData:
    """Centred rows of one problem in double precision, and what all of its columns share."""

    X: Float[np.ndarray, "n d"]

    @property
    def is_dual(self) -> bool:
        return self.X.shape[0] <= DUAL_UP_TO * self.X.shape[1]

    @cached_property
    def gram(self) -> Float[np.ndarray, "n n"]:
        return self.X @ self.X.T

    @cached_property
    def single(self) -> Float[np.ndarray, "n _"]:
        return (self.gram if self.is_dual else self.X).astype(np.float32)

    @cached_property
    def longest(self) -> float:
        """The norm of the longest column."""
        return float(np.sqrt(np.einsum("nd,nd->d", self.X, self.X).max()))


class _CoreFactors:
    """A factor per column: all in single precision, until that does not do for one."""

    _dtype: Any = np.float32
    _factor: torch.Tensor | None = None
    _n_columns: int

    def factor_whole(self, curvature: Rows, n_whole: int) -> bool:
        """Begin with the curvature of fits to all rows, if that is cheaper; False if it is not."""
        return False

    def refine(self) -> bool:
        """Factor in double precision from here on; False if that is done already."""
        if self._dtype is np.float64:
            return False
        self._dtype = np.float64
        if self._factor is not None:
            self._factor = self._factor.to(torch.float64)
        return True

    def _keep(self, hessians: np.ndarray, chosen: Int[np.ndarray, "c"]) -> bool:
        """Factor the Hessians of some columns; False if one has no factor in this precision."""
        factor, info = torch.linalg.cholesky_ex(torch.from_numpy(hessians))
        if bool(info.any()):
            return False
        if len(chosen) == self._n_columns:
            self._factor = factor
        else:
            assert self._factor is not None
            self._factor[torch.from_numpy(chosen)] = factor
        return True

    def _solve(self, right: np.ndarray) -> np.ndarray:
        assert self._factor is not None
        columns = torch.from_numpy(right.astype(self._dtype)[..., None])
        half = torch.linalg.solve_triangular(self._factor, columns, upper=False)
        found = torch.linalg.solve_triangular(self._factor.mT, half, upper=True)
        return np.asarray(found[..., 0].numpy(), dtype=np.float64)


class CoreDual(_CoreFactors):
    """Weights as combinations of the rows: `coef = alpha @ X`, alpha zero outside a column's rows."""

    gain = 0.6
    """A step that leaves more than this of the gradient asks for a new factor."""

    def __init__(self, data: CoreData, columns: CoreColumns) -> None:
        self._data, self.columns = data, columns
        self._n_columns, m = columns.index.shape
        self._there = np.arange(m) < columns.n_train[:, None]
        self._blocks: dict[tuple[int, Any], np.ndarray] = {}
        self._root = np.zeros((self._n_columns, m))
        self._least = FLOOR / np.maximum(data.gram.diagonal(), 1e-30)
        self._level, self._total = np.zeros_like(self._root), np.ones(self._n_columns)
        self._held_out: HeldOut | None = None

    def start(self) -> Weights:
        return np.zeros_like(self.columns.train)

    def begin(self, weights: Weights) -> Weights:
        return weights * self.columns.train

    def values(self, weights: Weights) -> Rows:
        return weights @ self._data.gram

    def inner(self, one: Weights, other: Weights, values: Rows) -> Each:
        return np.vecdot(one, values)

    def force(self, weights: Weights, residual: Rows) -> Weights:
        return residual - self.columns.penalty[:, None] * weights

    def gradient(self, force: Weights) -> Each:
        """An upper bound of the largest entry of the gradient: no column of X is longer."""
        return self._data.longest * np.sqrt(np.vecdot(force, force))

    def factor_whole(self, curvature: Rows, n_whole: int) -> bool:
        fewest, n = self.columns.train.sum(-1).min(), len(self._data.X)
        if not (1 - MOST) * n <= fewest < n or self._dtype is np.float64:
            return False
        penalty = self.columns.penalty[:, None]
        root = np.sqrt(np.maximum(curvature, self._least * penalty))
        scale = root[:n_whole].astype(np.float32)
        hessians = scale[:, :, None] * self._data.single * scale[:, None]
        hessians.reshape(n_whole, -1)[:, :: n + 1] += penalty[:n_whole].astype(np.float32)
        held_out = HeldOut(hessians, root, self.columns.train)
        self._held_out = held_out if held_out.works else None
        return held_out.works

    def factor(self, curvature: Rows, chosen: Int[np.ndarray, "c"]) -> None:
        if self._held_out is not None:
            self._held_out, chosen = None, np.arange(self._n_columns)
        index, penalty = self.columns.index[chosen], self.columns.penalty[chosen, None]
        weight = np.maximum(curvature[chosen[:, None], index], self._least[index] * penalty)
        root = np.sqrt(weight) * self._there[chosen]
        while not self._keep(self._hessians(root, chosen), chosen):
            must_be_refined(self.refine())
        self._root[chosen] = root
        self._level = self._solve(self._root) * self._root
        self._total = self._level.sum(-1)

    def _hessians(self, root: np.ndarray, chosen: Int[np.ndarray, "c"]) -> np.ndarray:
        c, m = root.shape
        made, scale = np.empty((c, m, m), self._dtype), root.astype(self._dtype)
        for number, j in enumerate(chosen.tolist()):
            np.multiply(self._block(j), scale[number], out=made[number])
        made *= scale[:, :, None]
        made.reshape(c, -1)[:, :: m + 1] += self.columns.penalty[chosen, None].astype(self._dtype)
        return made

    def _block(self, j: int) -> Float[np.ndarray, "m m"]:
        """The products of a column's own rows, gathered once for all strengths."""
        gram = self._data.gram if self._dtype is np.float64 else self._data.single
        if self.columns.everywhere:
            return gram
        key = self.columns.mask_of[j], self._dtype
        if key not in self._blocks:
            index = self.columns.index[j]
            self._blocks[key] = gram.take(index, 0).take(index, 1)
        return self._blocks[key]

    def step(self, force: Weights, weights: Weights, residual: Rows) -> tuple[Weights, Each]:
        if self._held_out is not None:
            return self._held_out.step(force, weights)
        here = force if self.columns.everywhere else force.take(self.columns.flat)
        here = here / np.where(self._root > 0, self._root, np.inf)
        free = self._solve(here) * self._root
        shift = (weights.sum(-1) + free.sum(-1)) / self._total
        found = free - shift[:, None] * self._level
        if self.columns.everywhere:
            return found, shift
        along = np.zeros_like(weights)
        along.ravel()[self.columns.flat] = found
        return along, shift

    def coef(self, weights: Weights) -> Float[np.ndarray, "J d"]:
        return weights @ self._data.X


class CorePrimal(_CoreFactors):
    """The weights themselves, with one Hessian of d x d per column."""

    gain = 0.95
    """As in `CoreDual`; here a factor costs as much as many steps."""

    def __init__(self, data: CoreData, columns: CoreColumns) -> None:
        self._data, self.columns = data, columns
        self._n_columns = len(columns.penalty)
        self._pull = np.zeros((self._n_columns, data.X.shape[1]))
        self._level, self._sum = np.zeros_like(self._pull), np.ones(self._n_columns)
        self._total = self._sum

    def start(self) -> Weights:
        return np.zeros_like(self._pull)

    def begin(self, weights: Weights) -> Weights:
        return weights

    def values(self, weights: Weights) -> Rows:
        return weights @ self._data.X.T

    def inner(self, one: Weights, other: Weights, values: Rows) -> Each:
        return np.vecdot(one, other)

    def force(self, weights: Weights, residual: Rows) -> Weights:
        return residual @ self._data.X - self.columns.penalty[:, None] * weights

    def gradient(self, force: Weights) -> Each:
        return np.abs(force).max(-1)

    def factor(self, curvature: Rows, chosen: Int[np.ndarray, "c"]) -> None:
        weight = curvature[chosen]
        while not self._keep(self._hessians(weight, chosen), chosen):
            must_be_refined(self.refine())
        self._weigh(weight, chosen)

    def factor_whole(self, curvature: Rows, n_whole: int) -> bool:
        """A fold's Hessian is that of all rows less that of the rows which it holds out."""
        rows, d = self._data.single, self._data.X.shape[1]
        folds = self.columns.train[::n_whole] > 0
        if folds.sum(-1).min() < (1 - MOST) * len(rows) or self._dtype is np.float64:
            return False
        made = np.empty((len(folds), n_whole, d, d), np.float32)
        for s in range(n_whole):
            scaled = rows * np.sqrt(curvature[s]).astype(np.float32)[:, None]
            whole = scaled.T @ scaled
            whole.reshape(-1)[:: d + 1] += self.columns.penalty[s]
            for fold, kept in enumerate(folds):
                out = scaled[~kept]
                np.subtract(whole, out.T @ out, out=made[fold, s])
        everyone = np.arange(self._n_columns)
        if not self._keep(made.reshape(-1, d, d), everyone):
            return False
        self._weigh(curvature * self.columns.train, everyone)
        return True

    def _weigh(self, weight: Rows, chosen: Int[np.ndarray, "c"]) -> None:
        """What the intercept needs of the factors."""
        self._pull[chosen] = weight @ self._data.X
        self._sum[chosen] = weight.sum(-1)
        self._level = self._solve(self._pull)
        self._total = self._sum - np.vecdot(self._pull, self._level)

    def _hessians(self, weight: Rows, chosen: Int[np.ndarray, "c"]) -> np.ndarray:
        rows = self._data.X if self._dtype is np.float64 else self._data.single
        d = rows.shape[1]
        made = np.empty((len(chosen), d, d), self._dtype)
        scale = np.sqrt(weight).astype(self._dtype)
        for number, j in enumerate(chosen.tolist()):
            kept = self.columns.train[j] > 0
            scaled = rows[kept] * scale[number, kept, None]
            np.matmul(scaled.T, scaled, out=made[number])
        made.reshape(len(chosen), -1)[:, :: d + 1] += self.columns.penalty[chosen, None].astype(
            self._dtype
        )
        return made

    def step(self, force: Weights, weights: Weights, residual: Rows) -> tuple[Weights, Each]:
        free = self._solve(force)
        wanted = residual.sum(-1) - np.vecdot(self._pull, free)
        shift = wanted / self._total
        return free - shift[:, None] * self._level, shift

    def coef(self, weights: Weights) -> Float[np.ndarray, "J d"]:
        return weights


CoreSpace = CoreDual | CorePrimal


def make_core_space(data: CoreData, columns: CoreColumns) -> CoreSpace:
    """The cheaper of the two spaces for these rows and features."""
    return CoreDual(data, columns) if data.is_dual else CorePrimal(data, columns)


LOOSE = 3e-3
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
