"""Probes with a closed form at every problem and fold: one pass over the data, from which every fold's sums are sliced."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.foundation.errors import InputError, StageError
from probes.probing.batched.problems import (
    MEMORY,
    LinearFits,
    checked,
    constant,
    in_pieces,
    scaling,
)
from probes.probing.batched.spaces import Data, gram_matrix

Linear = tuple[Float[Tensor, "P S d"], Float[Tensor, "P S"]]


@dataclasses.dataclass(frozen=True)
class Fold:
    """The rows that one fold is fitted on, in some problems; `gram` is a slice of the problem's own."""

    X: Float[Tensor, "P m d"]
    y: Bool[Tensor, "m"]
    gram: Float[Tensor, "P m m"] | None

    @cached_property
    def mean(self) -> Float[Tensor, "P d"]:
        return self.X.mean(1)

    @cached_property
    def class_means(self) -> tuple[Float[Tensor, "P d"], Float[Tensor, "P d"]]:
        """Of the negative and of the positive rows."""
        return self.X[:, ~self.y].mean(1), self.X[:, self.y].mean(1)

    @property
    def together(self) -> Float[Tensor, "m 1"]:
        """All rows as one group, to centre by."""
        return torch.ones_like(self.y, dtype=self.X.dtype)[:, None]

    @property
    def by_class(self) -> Float[Tensor, "m 2"]:
        """The rows' classes as groups, to centre by."""
        return torch.stack([~self.y, self.y], dim=1).to(self.X.dtype)


def solve_penalised(
    fold: Fold, groups: Tensor, right: Float[Tensor, "P d"], ridge: Float[Tensor, "P"]
) -> Float[Tensor, "P d"]:
    """`(Z.T @ Z + ridge I)^-1 @ right`, Z the fold's rows with the means of their groups taken off."""
    if fold.gram is None:
        Z = fold.X - groups @ ((groups.mT / groups.sum(0)[:, None]) @ fold.X)
        hessian = Z.mT @ Z
        hessian.diagonal(dim1=1, dim2=2).add_(ridge[:, None])
        return _solve(hessian, right)
    gram = centred(centred(fold.gram, groups).mT, groups)
    gram.diagonal(dim1=1, dim2=2).add_(ridge[:, None])
    along = centred((fold.X @ right[..., None]), groups)[..., 0]
    kept = centred(_solve(gram, along)[..., None], groups)
    return (right - (kept.mT @ fold.X)[:, 0]) / ridge[:, None]


def trace_within(fold: Fold) -> Float[Tensor, "P"]:
    """Sum of squares of the rows around the means of their classes."""
    squares = fold.X.square().sum((1, 2))
    counts = fold.by_class.sum(0)
    means = torch.stack([mean.square().sum(-1) for mean in fold.class_means], dim=-1)
    return squares - means @ counts


def centred(values: Float[Tensor, "P m k"], groups: Float[Tensor, "m g"]) -> Float[Tensor, "P m k"]:
    """Values less the mean of their group's rows."""
    return values - groups @ ((groups.mT / groups.sum(0)[:, None]) @ values)


def fit_closed(
    X: Sequence[np.ndarray] | np.ndarray,
    y: np.ndarray,
    train: np.ndarray | None,
    strengths: tuple[float, ...],
    solve: Callable[[Fold], Linear],
    description: str,
    *,
    device: str,
    memory: int,
    needs_gram: bool = True,
) -> LinearFits:
    """Apply a closed form to every problem and fold; see `fit_logistic` for the arguments.

    A feature that varies, but not in the rows of a fold, gets weight zero in that fold.
    """
    problems = checked(X, y, train)
    where = torch.device(device)
    shape = (len(problems), len(problems.train), len(strengths))
    coef, intercept = np.empty((*shape, problems.n_features)), np.empty(shape)
    labels = torch.from_numpy(problems.y).to(where)
    masks = torch.from_numpy(problems.train).to(where)

    def run(chunk: range) -> tuple[Tensor, Tensor]:
        raw = problems.rows(chunk, where)
        scale = scaling(raw, torch.ones_like(labels), standardise=False)
        data = Data(scale.apply(raw))
        found = []
        for mask in masks:
            index = mask.nonzero()[:, 0]
            rows, gram = data.X.index_select(1, index), None
            still = constant(rows, scale.mean)
            alike = not bool((still & torch.isfinite(scale.scale)).any())
            if not alike:
                rows = rows.masked_fill(still[:, None], 0.0)
            if needs_gram and data.is_dual:
                shared = data.gram.index_select(1, index).index_select(2, index) if alike else None
                gram = gram_matrix(rows) if shared is None else shared
            fold = Fold(rows, labels[index], gram)
            found.append(scale.undo(*solve(fold)))
        return torch.stack([c for c, _ in found], 1), torch.stack([b for _, b in found], 1)

    n, d = len(problems.y), problems.n_features
    threads = torch.get_num_threads() if where.type == "cpu" else 1
    chunks = problems.chunks(24 * n * d + 24 * n * n, memory, threads)
    for chunk, (found_coef, found_intercept) in in_pieces(run, chunks, description, threads):
        here = slice(chunk.start, chunk.stop)
        coef[here], intercept[here] = found_coef.cpu().numpy(), found_intercept.cpu().numpy()
    if not np.isfinite(coef).all():
        raise StageError(f"{description} gave weights that are not finite; raise the penalty")
    return LinearFits(coef, intercept, strengths, np.zeros(shape), 0)


def _solve(matrix: Float[Tensor, "P k k"], right: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
    factor, info = torch.linalg.cholesky_ex(matrix)
    if bool(info.any()):
        raise StageError("a covariance is not positive definite; raise the penalty or shrinkage")
    return torch.cholesky_solve(right[..., None], factor)[..., 0]


def fit_mean_difference(
    X: Sequence[np.ndarray] | np.ndarray,
    y: np.ndarray,
    train: np.ndarray | None = None,
    *,
    device: str = "cpu",
    memory: int = MEMORY,
) -> LinearFits:
    """The weights of `MeanDifferenceProbe`, zero midway between the means; one strength, called 1."""

    def solve(fold: Fold) -> Linear:
        low, high = fold.class_means
        coef = (high - low)[:, None]
        return coef, -(coef * (low + high)[:, None]).sum(-1) / 2

    return fit_closed(
        X, y, train, (1.0,), solve, "mean differences",
        device=device, memory=memory, needs_gram=False,
    )  # fmt: skip


def fit_ridge(
    X: Sequence[np.ndarray] | np.ndarray,
    y: np.ndarray,
    train: np.ndarray | None = None,
    *,
    alpha: Sequence[float] = (1.0,),
    device: str = "cpu",
    memory: int = MEMORY,
) -> LinearFits:
    """The weights of scikit-learn's `RidgeClassifier(alpha)`: targets -1 and 1, free intercept.

    alpha: penalties on |w|^2, all positive. The other arguments as in `fit_logistic`.
    """
    strengths = tuple(float(a) for a in alpha)
    if not strengths or not all(0 < a < float("inf") for a in strengths):
        raise InputError(
            f"alpha holds positive numbers, for instance (1.0, 100.0); saw {strengths}"
        )

    def solve(fold: Fold) -> Linear:
        target = torch.where(fold.y, 1.0, -1.0).to(fold.X)
        pull = (target - target.mean()) @ fold.X
        coef = torch.stack(
            [
                solve_penalised(fold, fold.together, pull, pull.new_full((len(pull),), a))
                for a in strengths
            ],
            dim=1,
        )
        return coef, target.mean() - (coef * fold.mean[:, None]).sum(-1)

    return fit_closed(X, y, train, strengths, solve, "ridge probes", device=device, memory=memory)


def fit_discriminant(
    X: Sequence[np.ndarray] | np.ndarray,
    y: np.ndarray,
    train: np.ndarray | None = None,
    *,
    shrinkage: Sequence[float] = (0.1,),
    prior: bool = True,
    device: str = "cpu",
    memory: int = MEMORY,
) -> LinearFits:
    """The weights of scikit-learn's `LinearDiscriminantAnalysis(solver="lsqr", shrinkage=s)`.

    The within-class covariance is shrunk to its mean variance by s, in (0, 1]; at 1 the direction is
    that of the plain mean difference. prior: whether the intercept holds the log odds of the classes;
    without, zero lies midway between the means (the covariance-whitened mean difference, Marks and
    Tegmark 2023). The other arguments as in `fit_logistic`.
    """
    strengths = tuple(float(s) for s in shrinkage)
    if not strengths or not all(0 < s <= 1 for s in strengths):
        raise InputError(
            f"shrinkage lies above 0 and up to 1; saw {strengths}. Without any, a covariance of more "
            "features than rows has no inverse"
        )

    def solve(fold: Fold) -> Linear:
        low, high = fold.class_means
        n, d = fold.X.shape[1:]
        variance = trace_within(fold) / (n * d)
        variance = torch.where(variance > 0, variance, 1.0)  # nothing varies: all weights are zero
        coef = []
        for s in strengths:
            if s == 1:
                coef.append((high - low) / variance[:, None])
                continue
            ridge = n * s * variance / (1 - s)
            found = solve_penalised(fold, fold.by_class, high - low, ridge)
            coef.append(found * n / (1 - s))
        stacked = torch.stack(coef, dim=1)
        odds = torch.logit(fold.y.to(fold.X.dtype).mean()) if prior else 0.0
        return stacked, odds - (stacked * (low + high)[:, None]).sum(-1) / 2

    return fit_closed(
        X, y, train, strengths, solve, "discriminant probes", device=device, memory=memory
    )
