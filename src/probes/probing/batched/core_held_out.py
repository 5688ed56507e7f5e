"""The folds' first steps from one inverse: that of a fit to all rows, with the held-out rows taken off.

Where B is the inverse of a Hessian S of all rows, the inverse of its part for the rows f that a fold
sees is `B[f, f] - B[f, o] @ inv(B[o, o]) @ B[o, f]`, o the rows held out. One inverse and a small factor
per fold stand in for a factor per fold. They go with the curvature of the fit to all rows, so they
serve until a fold has moved too far from it.
"""

import numpy as np
import torch
from jaxtyping import Float

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
