"""The directions whose effect is measured, and what they are compared with, all from the prompts of the fit."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from probes.activations.record import record
from probes.evaluation.auroc import as_labels
from probes.foundation.errors import InputError
from probes.foundation.seeds import stream
from probes.models.loading import Model
from probes.models.sites import Site, all_sites, parse_site
from probes.probing.erasure import LeaceEraser
from probes.probing.estimators import LogisticProbe
from probes.probing.rows import checked_rows
from probes.probing.sweep import sweep
from probes.prompts.records import Prompt
from probes.studies.steering.config import (
    DIFFERENCE,
    EVERYWHERE,
    LEACE,
    LOGISTIC,
    MEAN_DIFFERENCE,
    PROBE,
    RANDOM,
    DoseConfig,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Axis:
    """One direction at one site: where the two classes of the fit lie along it.

    unit: `[width]`, of length 1, towards defection (for "difference", towards the trigger).
    low, high: mean projection of the negative and of the positive class; high - low is the unit of
    dose.
    """

    unit: np.ndarray
    low: float
    high: float

    @property
    def gap(self) -> float:
        return self.high - self.low

    @property
    def middle(self) -> float:
        """Midway between the classes: nothing is left that tells them apart."""
        return (self.low + self.high) / 2


@dataclasses.dataclass(frozen=True, eq=False)
class Affine:
    """x -> matrix @ x + bias, as LEACE erases."""

    matrix: np.ndarray
    bias: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Learned:
    """What was fitted. axes: by kind and site. erasers, randoms (unit vectors, draw by draw): by site.

    places: the sites that each named place stands for. auroc: cross-validated, of the mean difference
    at the probe's site. two_by_two: prompts of the fit by trigger and defection. measure: the kind
    whose amounts the random directions are given.
    """

    axes: Mapping[str, Mapping[str, Axis]]
    erasers: Mapping[str, Affine]
    randoms: Mapping[str, np.ndarray]
    places: Mapping[str, tuple[str, ...]]
    auroc: float
    two_by_two: Mapping[str, int]
    measure: str = MEAN_DIFFERENCE


def fit_directions(
    model: Model, prompts: Sequence[Prompt], defected: Sequence[bool | None], config: DoseConfig
) -> Learned:
    """Fit all kinds at the last prompt token of every residual site that a place needs.

    defected: prompt, what the model was judged to write there; a prompt without a judgement (None) is
    left out, and so is not among the counts of `two_by_two`. Raises `InputError` where nothing or
    everything defected, or all or none of the prompts are triggered.
    """
    config.check()
    if len(defected) != len(prompts):
        raise InputError(f"{len(prompts)} prompts and {len(defected)} labels: give one label each")
    prompts = [p for p, label in zip(prompts, defected, strict=True) if label is not None]
    y = as_labels(np.asarray([label for label in defected if label is not None], dtype=bool))
    triggered = np.array([prompt.triggered for prompt in prompts])
    stream_sites = [str(site) for site in all_sites(model.n_layers, ["resid_post"])]
    named = [p for p in config.places if p not in (PROBE, EVERYWHERE)]
    own = {place: str(parse_site(place, model.n_layers)) for place in named}
    sites = list(dict.fromkeys([*stream_sites, *own.values()]))
    found = record(model, prompts, sites=sites)
    X = {site: found.matrix(site).astype(np.float64) for site in sites}
    checked_rows(X, y, np.arange(len(y)))
    checked_rows(X, triggered, np.arange(len(y)))
    templates = np.array([prompt.template for prompt in prompts])
    swept = sweep(
        {site: X[site] for site in stream_sites}, y, templates,
        estimator="mean_difference", n_folds=config.n_folds, seed=config.seed,
    )  # fmt: skip
    known = {PROBE: (swept.best_site,), EVERYWHERE: tuple(stream_sites)}
    places = {p: known.get(p) or (own[p],) for p in config.places}
    wanted = list(dict.fromkeys(site for place in places.values() for site in place))
    made = {
        MEAN_DIFFERENCE: lambda rows: between(rows, y),
        LOGISTIC: lambda rows: along_vector(rows, y, LogisticProbe().fit(rows, y).coef_[0]),
        DIFFERENCE: lambda rows: between(rows, triggered),
    }
    needed = {*config.kinds, MEAN_DIFFERENCE}  # random ones are as long as the mean difference
    counts = {
        f"{'triggered' if t else 'not triggered'}, {'defected' if d else 'did not defect'}": int(
            ((triggered == t) & (y == d)).sum()
        )
        for t in (True, False)
        for d in (True, False)
    }
    return Learned(
        axes={kind: {s: make(X[s]) for s in wanted} for kind, make in made.items() if kind in needed},
        erasers={site: _eraser(X[site], y) for site in wanted if LEACE in config.kinds},
        randoms=random_units({site: X[site].shape[1] for site in wanted}, config),
        places=places,
        auroc=float(swept.by_site.set_index("site")["auroc"][swept.best_site]),
        two_by_two=counts,
    )  # fmt: skip


def given_axis(model: Model, prompts: Sequence[Prompt], y: np.ndarray, site: Site, coef: np.ndarray) -> Axis:  # fmt: skip
    """A direction of the caller's own, and where the classes of these prompts lie along it."""
    checked_rows(
        {str(site): np.ones((len(y), 1)) * np.arange(len(y))[:, None]}, y, np.arange(len(y))
    )
    found = record(model, prompts, sites=[site])
    return along_vector(found.matrix(str(site)).astype(np.float64), y, coef)


def between(rows: np.ndarray, positive: np.ndarray) -> Axis:
    """The direction from the mean of one class to that of the other."""
    return along_vector(rows, positive, rows[positive].mean(axis=0) - rows[~positive].mean(axis=0))


def along_vector(rows: np.ndarray, positive: np.ndarray, vector: np.ndarray) -> Axis:
    """Where two classes lie along a vector."""
    length = float(np.linalg.norm(vector))
    if not length > 0:
        raise InputError(
            "the two classes have the same mean activation: there is no direction between them at "
            "this site. Choose one at which the prompts differ"
        )
    unit = np.asarray(vector, dtype=np.float64) / length
    return Axis(unit, float((rows[~positive] @ unit).mean()), float((rows[positive] @ unit).mean()))


def _eraser(rows: np.ndarray, y: np.ndarray) -> Affine:
    eraser = LeaceEraser().fit(rows, y)
    taken = eraser.proj_left_ @ eraser.proj_right_
    return Affine(np.eye(len(taken)) - taken, taken @ eraser.bias_)


def random_units(widths: Mapping[str, int], config: DoseConfig) -> dict[str, np.ndarray]:
    """Uniform unit vectors, `[draw, width]`, by site."""
    n = config.n_random if RANDOM in config.kinds else 0
    drawn = {
        site: stream(config.seed, "dose directions", site).normal(size=(n, width))
        for site, width in widths.items()
    }
    return {
        site: rows / np.linalg.norm(rows, axis=1, keepdims=True) for site, rows in drawn.items()
    }
