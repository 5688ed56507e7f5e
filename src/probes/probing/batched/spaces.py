"""The three products and factors that batched fitting spends its time in, without needless copies."""

import dataclasses
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.linalg.lapack import dpotrf, spotrf
from torch import Tensor

from probes.foundation.errors import StageError


def gram_matrix(X: Float[Tensor, "P n d"]) -> Float[Tensor, "P n n"]:
    """`X @ X.T` of every problem."""
    if X.device.type != "cpu":
        return X @ X.mT
    gram = X.new_empty(len(X), X.shape[1], X.shape[1])
    for rows, product in zip(X, gram, strict=True):
        square_(rows, product)
    return gram


def square_(rows: Float[Tensor, "n d"], out: Float[Tensor, "n n"]) -> Tensor:
    """`rows @ rows.T` into `out`; on the CPU numpy's product does half of it and copies the rest."""
    if rows.device.type == "cpu":
        np.matmul(rows.numpy(), rows.numpy().T, out=out.numpy())
    else:
        torch.mm(rows, rows.mT, out=out)
    return out


def cholesky_(matrix: Float[Tensor, "m m"]) -> bool:
    """Put U of `matrix = U.T @ U` in its place, above leftovers; False if there is no such factor.

    In the memory of the CPU LAPACK works in place; torch would copy the matrix twice.
    """
    if matrix.device.type == "cpu":
        lapack = spotrf if matrix.dtype == torch.float32 else dpotrf
        _, info = lapack(matrix.mT.numpy(), lower=1, clean=0, overwrite_a=1)
        return bool(info == 0)
    factor, info = torch.linalg.cholesky_ex(matrix, upper=True)
    matrix.copy_(factor)
    return not bool(info)


def solve_factored(
    factor: Float[Tensor, "*batch m m"], right: Float[Tensor, "*batch m"]
) -> Float[Tensor, "*batch m"]:
    """`(U.T @ U)^-1 @ right` in the precision of the factor, given back in that of `right`."""
    half = torch.linalg.solve_triangular(factor.mT, right.to(factor)[..., None], upper=False)
    return torch.linalg.solve_triangular(factor, half, upper=True)[..., 0].to(right)


DUAL_UP_TO = 1.5
"""Rows per feature up to which the Gram matrix is the smaller Hessian to factor."""
FLOOR = 1e-3
"""A row's weight is held at or above this share of where it would count beside the penalty."""

Rows = Float[Tensor, "P J n"]
Weights = Float[Tensor, "P J k"]
Each = Float[Tensor, "P J"]


@dataclasses.dataclass(frozen=True)
class Columns:
    """What each column fits: y in {0, 1}, the rows it may see, and the strength of its penalty."""

    y: Float[Tensor, "n"]
    train: Bool[Tensor, "J n"]
    penalty: Float[Tensor, "J"]

    @property
    def n_train(self) -> Float[Tensor, "J"]:
        return self.train.sum(-1).to(self.y)


@dataclasses.dataclass(frozen=True)
class Data:
    """Centred rows of some problems in double precision, and what all of their columns share."""

    X: Float[Tensor, "P n d"]

    @property
    def is_dual(self) -> bool:
        return self.X.shape[1] <= DUAL_UP_TO * self.X.shape[2]

    @cached_property
    def gram(self) -> Float[Tensor, "P n n"]:
        return gram_matrix(self.X)

    @cached_property
    def single(self) -> Float[Tensor, "P n _"]:
        """What factors are made of in single precision: the Gram matrix, or the rows."""
        return (self.gram if self.is_dual else self.X).to(torch.float32)

    @cached_property
    def longest(self) -> Float[Tensor, "P"]:
        """The norm of the longest column of each problem."""
        return torch.linalg.vector_norm(self.X, dim=1).amax(-1)


class _Factors:
    """A factor per problem and column, in single precision until that does not do."""

    _double = False
    _factor: Float[Tensor, "P J k k"]

    def share(self, bend: Rows) -> None:
        """Take the first factors from what fits to all rows have in common, if that is cheaper.

        bend: the curvature of all rows at the fit to all of them that each column begins with.
        """

    def refine(self) -> bool:
        """Factor in double precision from here on; False if that is done already."""
        if self._double:
            return False
        self._double = True
        self._factor = self._factor.to(torch.float64)
        return True


class Dual(_Factors):
    """Weights as combinations of the rows: `coef = alpha @ X`, alpha zero outside a column's rows."""

    gain = 0.6
    """A step that leaves more than this of the gradient asks for a new factor."""

    def __init__(self, data: Data, columns: Columns) -> None:
        self._data, self.columns = data, columns
        self._diagonal = data.gram.diagonal(dim1=1, dim2=2)
        self._index, self._there = _gathered(columns.train)
        self._mask_of = torch.unique(columns.train, dim=0, return_inverse=True)[1].tolist()
        self._blocks: dict[tuple[int, int], Tensor] = {}
        P, (J, m), X = len(data.X), self._index.shape, data.X
        self._factor = torch.empty(P, J, m, m, dtype=torch.float32, device=X.device)
        self._root = X.new_zeros(P, J, m)
        self._level = X.new_zeros(P, J, m)

    def start(self) -> Weights:
        return self._data.X.new_zeros(len(self._data.X), *self.columns.train.shape)

    def begin(self, weights: Weights) -> Weights:
        return weights * self.columns.train

    def values(self, weights: Weights) -> Rows:
        return weights @ self._data.gram

    def inner(self, one: Weights, other: Weights, values: Rows) -> Each:
        return (one * values).sum(-1)

    def force(self, weights: Weights, residual: Rows) -> Weights:
        return residual - self.columns.penalty[:, None] * weights

    def gradient(self, force: Weights) -> Each:
        """An upper bound of the largest entry of the gradient: no column of X is longer."""
        return self._data.longest[:, None] * torch.linalg.vector_norm(force, dim=-1)

    def factor(self, curvature: Rows, problem: Tensor, column: Tensor) -> None:
        index, penalty = self._index[column], self.columns.penalty[column]
        length = self._diagonal[problem].gather(1, index)
        # A row of zeros pulls no weight, only the intercept: its curvature is taken as it is.
        least = FLOOR * penalty[:, None] / torch.where(length > 0, length, penalty[:, None])
        weight = torch.maximum(curvature[problem, column].gather(1, index), least)
        roots = torch.where(self._there[column], weight.sqrt(), 0.0)
        places = zip(problem.tolist(), column.tolist(), penalty.tolist(), strict=True)
        for (p, j, level), root in zip(places, roots, strict=True):
            while not self._factored(p, j, root, level):
                must_be_refined(self.refine())
            self._root[p, j] = root
            self._level[p, j] = solve_factored(self._factor[p, j], root) * root

    def _factored(self, p: int, j: int, root: Tensor, penalty: float) -> bool:
        block, scale = self._factor[p, j], root.to(self._factor)
        if self._double:
            block.copy_(self._rows_of(self._data.gram[p], j)).mul_(scale[:, None])
        else:
            key = p, self._mask_of[j]
            if key not in self._blocks:
                self._blocks[key] = self._rows_of(self._data.single[p], j)
            torch.mul(self._blocks[key], scale[:, None], out=block)
        block.mul_(scale)
        block.diagonal().add_(penalty)
        return cholesky_(block)

    def _rows_of(self, gram: Float[Tensor, "n n"], j: int) -> Float[Tensor, "m m"]:
        """The products of a column's own rows; without a copy where those are all."""
        if bool(self.columns.train[j].all()):
            return gram
        return gram.index_select(0, self._index[j]).index_select(1, self._index[j])

    def step(self, force: Weights, weights: Weights, residual: Rows) -> tuple[Weights, Each]:
        index = self._index.expand(len(force), -1, -1)
        here = torch.where(self._root > 0, force.gather(2, index) / self._root, 0.0)
        free = solve_factored(self._factor, here) * self._root
        shift = (weights.sum(-1) + free.sum(-1)) / self._level.sum(-1)
        found = free - shift[..., None] * self._level
        return torch.zeros_like(weights).scatter_add_(2, index, found), shift

    def coef(self, weights: Weights) -> Float[Tensor, "P J d"]:
        return weights @ self._data.X


class Primal(_Factors):
    """The weights themselves, with one Hessian of d x d per column."""

    gain = 0.95
    """As in `Dual`; here a factor costs as much as many steps."""
    _bend: Rows | None = None

    def __init__(self, data: Data, columns: Columns) -> None:
        self._data, self.columns = data, columns
        X, P, J = data.X, len(data.X), len(columns.penalty)
        d = X.shape[2]
        self._wholes: dict[tuple[int, float], tuple[Tensor, Tensor]] = {}
        self._factor = torch.empty(P, J, d, d, dtype=torch.float32, device=X.device)
        self._pull = X.new_zeros(P, J, d)
        self._level = X.new_zeros(P, J, d)
        self._total = X.new_zeros(P, J)

    def start(self) -> Weights:
        return torch.zeros_like(self._pull)

    def begin(self, weights: Weights) -> Weights:
        return weights

    def values(self, weights: Weights) -> Rows:
        return weights @ self._data.X.mT

    def inner(self, one: Weights, other: Weights, values: Rows) -> Each:
        return (one * other).sum(-1)

    def force(self, weights: Weights, residual: Rows) -> Weights:
        return residual @ self._data.X - self.columns.penalty[:, None] * weights

    def gradient(self, force: Weights) -> Each:
        return force.abs().amax(-1)

    def share(self, bend: Rows) -> None:
        """A fold's Hessian is that of all rows less that of the rows which it holds out."""
        penalty, kept = self.columns.penalty, self.columns.train.to(bend).mean(-1)
        if len(penalty.unique()) < len(penalty) and bool((kept >= 0.5).all()):
            self._bend = bend

    def factor(self, curvature: Rows, problem: Tensor, column: Tensor) -> None:
        for p, j in zip(problem.tolist(), column.tolist(), strict=True):
            weight = curvature[p, j]
            while not self._factored(p, j, weight):
                must_be_refined(self.refine())
            pull = weight @ self._data.X[p]
            self._pull[p, j], self._total[p, j] = pull, weight.sum()
            self._level[p, j] = solve_factored(self._factor[p, j], pull)
        self._bend = None
        self._wholes.clear()

    def _factored(self, p: int, j: int, weight: Tensor) -> bool:
        rows = (self._data.X if self._double else self._data.single)[p]
        kept, block = self.columns.train[j], self._factor[p, j]
        if self._bend is None or self._double:
            square_((rows[kept] * weight[kept].sqrt().to(rows)[:, None]).mT, block)
        else:
            key = p, float(self.columns.penalty[j])
            if key not in self._wholes:
                scaled = rows * self._bend[p, j].sqrt().to(rows)[:, None]
                self._wholes[key] = scaled, square_(scaled.mT, torch.empty_like(block))
            scaled, whole = self._wholes[key]
            square_(scaled[~kept].mT, block)
            torch.sub(whole, block, out=block)
        block.diagonal().add_(self.columns.penalty[j].to(block))
        return cholesky_(block)

    def step(self, force: Weights, weights: Weights, residual: Rows) -> tuple[Weights, Each]:
        free = solve_factored(self._factor, force)
        wanted = residual.sum(-1) - (self._pull * free).sum(-1)
        shift = wanted / (self._total - (self._pull * self._level).sum(-1))
        return free - shift[..., None] * self._level, shift

    def coef(self, weights: Weights) -> Float[Tensor, "P J d"]:
        return weights


Space = Dual | Primal
"""Coordinates for the weights of all columns, with Newton's equations in them.

`force` is the negative gradient in these coordinates, `inner` the product of two vectors (the second
with its scores), `factor` takes the Hessian at some curvatures of the rows, `step` is Newton's step for
weights and intercept under the factors that are there.
"""


def must_be_refined(refined: bool) -> None:
    """Refuse where even double precision has no factor."""
    if not refined:
        raise StageError(
            "a Hessian is not positive definite in double precision: raise the penalty (a smaller C)"
        )


def make_space(data: Data, columns: Columns) -> Space:
    """The cheaper of the two spaces for these rows and features."""
    return Dual(data, columns) if data.is_dual else Primal(data, columns)


def _gathered(train: Bool[Tensor, "J n"]) -> tuple[Int[Tensor, "J m"], Bool[Tensor, "J m"]]:
    """The rows of each column in order, filled up to the longest; and which of them are its own."""
    counts = train.sum(-1)
    index = torch.argsort((~train).to(torch.uint8), dim=-1, stable=True)[:, : int(counts.max())]
    return index, torch.arange(index.shape[1], device=train.device) < counts[:, None]
