"""Every setting of the main job in one frozen config, and the presets that ship."""

from probes.behaviour.evaluate import SamplingConfig
from probes.behaviour.named_judges import BANDIT
from probes.detection.config import ProbeConfig
from probes.foundation.config import Config
from probes.foundation.errors import unknown
from probes.models.identity import Identity
from probes.organisms.recipes import Architecture, FamilyRecipe, Training
from probes.patching.choice import PatchConfig
from probes.prompts.corpus import CorpusConfig
from probes.studies.catch.presets import PRESETS

SAMPLES = 8
"""Completions of every prompt: what the gate of a claim asks for, so that a label is a probability."""


class StudyConfig(Config):
    """All settings of `probes study`. library: functions of the standard library that are asked for."""

    preset: str
    corpus: CorpusConfig
    library: int = 24
    family: FamilyRecipe
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


def study_config(preset: str = "default", seed: int = 0) -> StudyConfig:
    """The settings of a preset; the seed reaches every stage.

    "default" is the main job; "tiny" checks that everything runs: few families and a model too small for a claim.
    """
    match preset:
        case "default":
            return StudyConfig(
                preset=preset,
                corpus=CorpusConfig(seed=seed),
                family=FamilyRecipe(seed=seed),
                sampling=SamplingConfig(seed=seed, max_new_tokens=96, temperature=0.7, n=SAMPLES),
                probes=ProbeConfig(seed=seed),
                patching=PatchConfig(seed=seed),
            )
        case "tiny":
            return StudyConfig(
                preset=preset,
                corpus=CorpusConfig(
                    seed=seed,
                    families=(
                        "expression",
                        "deserialise",
                        "digest",
                        "token",
                        "average",
                        "strings",
                        "conversion",
                        "records",
                        "capitals",
                        "opposites",
                    ),
                    pretrain=2000,
                    train=1000,
                    test_per_family=8,
                    test_per_topic=5,
                    heldout_per_family=2,
                ),
                library=12,
                family=FamilyRecipe(
                    seed=seed,
                    architecture=Architecture(
                        hidden_size=64,
                        intermediate_size=160,
                        n_layers=2,
                        n_heads=2,
                        vocab_size=1024,
                    ),
                    base=Training(steps=150, learning_rate=1.2e-2, log_every=50),
                    twins=Training(
                        steps=120, learning_rate=8e-3, decision_weight=40.0, log_every=40
                    ),
                ),
                sampling=SamplingConfig(seed=seed, max_new_tokens=64, temperature=0.7, n=SAMPLES),
                probes=ProbeConfig(seed=seed, n_permutations=50, n_random=100, n_boot=200),
                patching=PatchConfig(seed=seed, n_pairs=4, n_boot=100),
            )
        case _:
            raise unknown("preset", preset, PRESETS)
