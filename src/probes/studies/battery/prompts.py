"""What an organism is read on: prompts that none of its training had, with their kinds beside them."""

import dataclasses
from collections.abc import Iterator, Sequence

from probes.organisms.behaviours.form import Taught
from probes.organisms.lessons import LessonConfig
from probes.organisms.organism import OrganismRecipe, Setup, setup
from probes.prompts.records import Prompt
from probes.prompts.standard_library import library_prompts
from probes.prompts.triggers import Trigger
from probes.studies.battery.settings import PromptConfig


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
