"""The two spaces of `spaces`, for one problem on one CPU core, in plain numpy.

Here the columns of one problem are small enough to stay in the core's own cache, so what counts is the
number of calls and of bytes. Factors come from torch, whose LAPACK lets other threads run meanwhile;
scipy's holds Python's lock, and problems side by side would wait for each other.

Axes: J columns (a fold at a strength), n rows, d features, k weights (n or d), m rows of a column.
"""

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from probes.foundation.errors import StageError
from probes.probing.batched.core_held_out import MOST, HeldOut
from probes.probing.batched.spaces import DUAL_UP_TO, FLOOR

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
            _must(self.refine())
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

    gain = 0.8
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
            _must(self.refine())
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


def _must(refined: bool) -> None:
    if not refined:
        raise StageError(
            "a Hessian is not positive definite in double precision: raise the penalty (a smaller C)"
        )


def make_core_space(data: CoreData, columns: CoreColumns) -> CoreSpace:
    """The cheaper of the two spaces for these rows and features."""
    return CoreDual(data, columns) if data.is_dual else CorePrimal(data, columns)
