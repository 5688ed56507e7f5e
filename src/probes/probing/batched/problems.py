"""What a batched fit is given, in pieces and scaled, and what it gives back: one linear score per problem, fold and strength."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from threadpoolctl import threadpool_limits
from torch import Tensor

from probes.evaluation.auroc import as_labels
from probes.foundation.errors import InputError
from probes.foundation.html import html_text
from probes.foundation.progress import bar
from probes.probing.rows import CONSTANT


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LinearFits:
    """`score = X @ coef + intercept` for every problem, fold and strength.

    coef: in the units of the activations given, float64. strengths: what the last axis of
    `intercept` counts, in the order asked for. gradient: at the end of each fit, on the scale of `tol`
    (an upper bound where n < d); zeros for closed forms. n_steps: of the slowest chunk.
    """

    coef: Float[np.ndarray, "problem fold strength feature"]
    intercept: Float[np.ndarray, "problem fold strength"]
    strengths: tuple[float, ...]
    gradient: Float[np.ndarray, "problem fold strength"]
    n_steps: int

    def scores(
        self, problem: int, X: Float[np.ndarray, "row feature"]
    ) -> Float[np.ndarray, "fold strength row"]:
        """Scores of rows of one problem under all of its fits."""
        rows = np.asarray(X, dtype=np.float64)
        return np.asarray(self.coef[problem] @ rows.T + self.intercept[problem][..., None])

    def __repr__(self) -> str:
        problems, folds, strengths, width = self.coef.shape
        return f"LinearFits({problems} problems x {folds} folds x {strengths} strengths, {width} features)"

    def _repr_html_(self) -> str:
        return html_text(repr(self))


T = TypeVar("T")
MEMORY = 512 * 2**20
AT_ONCE = 8
"""Problems of one piece: enough to pay for the calls, few enough to stay in the caches."""


@dataclasses.dataclass(frozen=True, eq=False)
class Problems:
    """Checked input: activations by problem, labels, and the rows that each fold is fitted on."""

    X: Sequence[np.ndarray] | np.ndarray
    y: Bool[np.ndarray, "row"]
    train: Bool[np.ndarray, "fold row"]

    @property
    def n_features(self) -> int:
        return int(np.shape(self.X[0])[1])

    def __len__(self) -> int:
        return len(self.X)

    def rows(self, chunk: range, device: torch.device) -> Float[Tensor, "P n d"]:
        """The activations of some problems in double precision; refuses what is not finite."""
        expected = (len(self.y), self.n_features)
        for number in chunk:
            if np.shape(self.X[number]) != expected:
                raise InputError(
                    f"problem {number} has shape {np.shape(self.X[number])}, not {expected}: all "
                    "problems of one call have the same rows and width; fit others in a call of their own"
                )
        if isinstance(self.X, np.ndarray):
            raw = torch.from_numpy(_writable(self.X[chunk.start : chunk.stop]))
        else:
            raw = torch.stack([torch.from_numpy(_writable(self.X[i])) for i in chunk])
        rows = raw.to(device, torch.float64)
        sums = rows.sum(1)
        if not bool(torch.isfinite(sums).all()):
            number = chunk[int((~torch.isfinite(sums).all(-1)).nonzero()[0])]
            raise InputError(
                f"problem {number} holds NaN or infinite activations: collect again in float32, "
                "or leave the row out"
            )
        return rows

    def chunks(
        self, bytes_each: int, memory: int, workers: int, at_once: int = AT_ONCE
    ) -> list[range]:
        """Runs of problems that take at most `memory` bytes in all workers together."""
        most = max(1, min(at_once, memory // max(1, bytes_each * workers)))
        size = math.ceil(len(self) / math.ceil(len(self) / most))
        return [range(a, min(a + size, len(self))) for a in range(0, len(self), size)]


def checked(
    X: Sequence[np.ndarray] | np.ndarray, y: np.ndarray, train: np.ndarray | None
) -> Problems:
    """Refuse what cannot be fitted, saying what was seen and what would do."""
    labels = as_labels(y)
    if len(X) == 0:
        raise InputError("no problems: give activations as (problem, row, feature)")
    if np.ndim(X[0]) != 2:
        raise InputError(
            f"a problem is (row, feature); saw shape {np.shape(X[0])}. Give (problem, row, feature)"
        )
    masks = np.ones((1, len(labels)), dtype=bool) if train is None else np.asarray(train)
    if masks.ndim != 2 or masks.dtype != np.bool_ or masks.shape[1] != len(labels):
        raise InputError(
            f"train has shape {masks.shape} and type {masks.dtype}: give a boolean (fold, row), True "
            f"where a fold is fitted, for {len(labels)} rows"
        )
    for fold, mask in enumerate(masks):
        seen = labels[mask]
        if len(seen) == 0 or seen.all() or not seen.any():
            raise InputError(
                f"fold {fold} is fitted on one class only: {int(seen.sum())} positive of {len(seen)} "
                "rows. Give fewer folds, or more groups of the rarer class"
            )
    return Problems(X, _writable(labels), _writable(masks))


def in_pieces(
    work: Callable[[range], T], chunks: Sequence[range], description: str, threads: int
) -> Iterator[tuple[range, T]]:
    """Do every chunk, some of them side by side, each on one core; results in order.

    BLAS is kept to one thread meanwhile, in numpy too: two of its calls at once, each on all cores,
    wait for each other, and its sums depend on how many threads share them.
    """
    total = sum(map(len, chunks))
    before = torch.get_num_threads()
    with bar(description, total=total) as shown, threadpool_limits(1, user_api="blas"):
        try:
            torch.set_num_threads(1)
            if threads == 1 or len(chunks) == 1:
                for chunk in chunks:
                    yield chunk, work(chunk)
                    shown.update(len(chunk))
                return
            with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as p:
                for chunk, result in zip(chunks, p.map(work, chunks), strict=True):
                    yield chunk, result
                    shown.update(len(chunk))
        finally:
            torch.set_num_threads(before)


def _writable(values: np.ndarray) -> np.ndarray:
    """The same values where torch may share them; a copy of what is mapped for reading."""
    return np.require(values, requirements=["C", "W"])


@dataclasses.dataclass(frozen=True)
class Scaling:
    """`(X - mean) / scale` per problem; features that do not vary have scale infinity: they become 0."""

    mean: Float[Tensor, "P d"]
    scale: Float[Tensor, "P d"]

    def apply(self, X: Float[Tensor, "P n d"]) -> Float[Tensor, "P n d"]:
        centred = X - self.mean[:, None]
        return centred if bool((self.scale == 1).all()) else centred.div_(self.scale[:, None])

    def undo(
        self, coef: Float[Tensor, "P J d"], intercept: Float[Tensor, "P J"]
    ) -> tuple[Float[Tensor, "P J d"], Float[Tensor, "P J"]]:
        """Weights and intercept that give the same scores on rows as they were."""
        raw = coef / self.scale[:, None]
        return raw, intercept - (raw * self.mean[:, None]).sum(-1)


def scaling(X: Float[Tensor, "P n d"], rows: Bool[Tensor, "n"], *, standardise: bool) -> Scaling:
    """Mean and, if asked, standard deviation of the chosen rows; whether a feature varies, of them too."""
    chosen = X if bool(rows.all()) else X[:, rows]
    mean = chosen.mean(1)
    still = constant(chosen, None)
    spread = torch.ones_like(mean)
    if standardise:
        spread = chosen.var(1, correction=0).sqrt()
    return Scaling(mean, torch.where(still, torch.inf, spread))


def constant(X: Float[Tensor, "P n d"], mean: Float[Tensor, "P d"] | None) -> Bool[Tensor, "P d"]:
    """True for features that do not vary, as in `rows.varying`. mean: what was taken off before."""
    low, high = X.amin(1), X.amax(1)
    magnitude = [low, high] if mean is None else [low + mean, high + mean]
    return (high - low) <= CONSTANT * torch.maximum(magnitude[0].abs(), magnitude[1].abs())
