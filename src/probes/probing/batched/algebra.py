"""The three products and factors that batched fitting spends its time in, without needless copies."""

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg.lapack import dpotrf, spotrf
from torch import Tensor


def gram_matrix(X: Float[Tensor, "P n d"]) -> Float[Tensor, "P n n"]:
    """`X @ X.T` of every problem; on the CPU numpy's product does half of it and copies the rest."""
    if X.device.type != "cpu":
        return X @ X.mT
    gram = X.new_empty(len(X), X.shape[1], X.shape[1])
    for rows, product in zip(X.numpy(), gram.numpy(), strict=True):
        np.matmul(rows, rows.T, out=product)
    return gram


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
