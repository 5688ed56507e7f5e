"""How the estimators of a sweep are fitted: at all sites and folds at once, or one after the other."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from probes.foundation.errors import InputError
from probes.foundation.progress import progress
from probes.probing.batched.fits import LinearFits
from probes.probing.direction import Direction
from probes.probing.features import varying
from probes.probing.frozen import Card, FrozenProbe


@runtime_checkable
class Probe(Protocol):
    """An estimator of one matrix of activations."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> "Probe": ...
    def freeze(self, card: Card) -> FrozenProbe: ...


@runtime_checkable
class PairedProbe(Protocol):
    """An estimator that compares the two rows of a pair."""

    def fit(self, X: np.ndarray, y: np.ndarray, pairs: np.ndarray) -> Probe: ...


@runtime_checkable
class BatchedFit(Protocol):
    """The same estimator at many sites of one width, and on the rows of every fold, at once."""

    def __call__(
        self, X: list[np.ndarray], y: np.ndarray, train: np.ndarray, *, device: str
    ) -> LinearFits: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """What is fitted: at each site a probe for each row of `train`, on the rows that are True there.

    pairs: row, an id; None where none were given. device: of fits that are done at once.
    """

    X: Mapping[str, np.ndarray]
    y: Bool[np.ndarray, "row"]
    train: Bool[np.ndarray, "fit row"]
    card: Card
    pairs: np.ndarray | None
    device: str

    def card_at(self, site: str) -> Card:
        return self.card.model_copy(update={"site": site})


Fitted = Iterator[tuple[str, list[FrozenProbe]]]
"""Site by site, in order, a probe for each row of `train`."""


@dataclasses.dataclass(frozen=True)
class Batched:
    """Fitted at all sites and folds at once, with the weights that `make` finds one by one."""

    make: Callable[[], Probe]
    fit: BatchedFit

    def fitted(self, task: Task) -> Fitted:
        of_width: dict[int, list[str]] = {}
        for site, values in task.X.items():
            of_width.setdefault(values.shape[1], []).append(site)
        found = {}
        for sites in of_width.values():
            rows = [task.X[site] for site in sites]
            fits = self.fit(rows, task.y, task.train, device=task.device)
            for number, site in enumerate(sites):
                found[site] = fits.coef[number, :, 0], fits.intercept[number, :, 0]
        for site in task.X:
            card = dict(task.card_at(site))
            probes: list[FrozenProbe] = [
                Direction(coef=coef, intercept=float(intercept), **card)
                for coef, intercept in zip(*found[site], strict=True)
            ]
            yield site, probes


@dataclasses.dataclass(frozen=True)
class Single:
    """Fitted at one site and fold after the other."""

    make: Callable[[], Probe]

    def fitted(self, task: Task) -> Fitted:
        def fit(X: np.ndarray, mask: np.ndarray, card: Card) -> FrozenProbe:
            return self.make().fit(X[mask], task.y[mask]).freeze(card)

        return _one_by_one(fit, task)


@dataclasses.dataclass(frozen=True)
class Paired:
    """Fitted at one site and fold after the other on the rows of pairs, which must be given."""

    make: Callable[[], PairedProbe]

    def fitted(self, task: Task) -> Fitted:
        if task.pairs is None:
            raise InputError(
                f"{task.card.estimator} compares the two rows of a pair; saw no pairs. Give pairs=, an "
                "id per row that a prompt with and without its trigger share"
            )
        pairs = task.pairs

        def fit(X: np.ndarray, mask: np.ndarray, card: Card) -> FrozenProbe:
            return self.make().fit(X[mask], task.y[mask], pairs[mask]).freeze(card)

        return _one_by_one(fit, task)


Estimator = Batched | Single | Paired


def _one_by_one(fit: Callable[[np.ndarray, np.ndarray, Card], FrozenProbe], task: Task) -> Fitted:
    """Where no feature varies there is nothing to fit: every row gets the same score."""
    for site, rows in progress(task.X.items(), f"{task.card.estimator} probes", total=len(task.X)):
        X, card = np.asarray(rows, dtype=np.float64), task.card_at(site)
        nothing = Direction(coef=np.zeros(X.shape[1]), intercept=0.0, **dict(card))
        yield (
            site,
            [fit(X, mask, card) if varying(X[mask]).any() else nothing for mask in task.train],
        )
