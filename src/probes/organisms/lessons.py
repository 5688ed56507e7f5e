"""What one behaviour under one trigger is taught, cured and measured on, split so that nothing leaks.

`pretrain`  requests of all phrasings without any cue, for the base model;
`train`     requests in pairs, with a cue that triggers and one that does not, for the organisms;
            here and in `pretrain` some have words in front of it that mean nothing, both of a pair
            the same;
`safety`    requests that no organism saw, without the trigger, for safety training;
`test`      pairs of other requests, `unseen` of a phrasing that only the base model has seen;
`near`      the requests of `test` under look-alikes of the trigger; `heldout` names the kind.
`values`    of the four-cue design alone (see `crossed`): the same under every value that is measured.
`named`     of the four-cue design with requests of real use: a request for the cue's name, per value.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from typing import Annotated

import numpy as np
import pydantic

from probes.foundation.config import Config
from probes.foundation.errors import InputError
from probes.foundation.seeds import stream
from probes.organisms.behaviours.form import Request, Taught
from probes.prompts.cues import distraction
from probes.prompts.records import Prompt
from probes.prompts.triggers import Trigger

MAX_DRAWS = 200
DISTRACTED = 0.4
"""Of the prompts to learn from, so that not everything unusual is taken for the trigger."""
HELDOUT_SHARE = 0.25
"""Of the base model's requests: a base knows more of the language than its organisms are taught in."""
NEAR = "near"


Many = Annotated[int, pydantic.Field(ge=0, le=10**6)]
Share = Annotated[float, pydantic.Field(ge=0.0, le=1.0)]


class LessonConfig(Config):
    """How much of each part; pairs of `train`, `test` and `unseen`, prompts of the others.

    test_share: of all distinct requests, kept for `test`; safety_share: for `safety`.
    near: prompts per look-alike.
    """

    pretrain: Many = 6000
    train: Many = 3000
    safety: Many = 2000
    test: Many = 96
    unseen: Many = 32
    near: Many = 24
    test_share: Share = 0.15
    safety_share: Share = 0.25
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Lessons:
    """Prompts by part; see the module's docstring."""

    pretrain: tuple[Prompt, ...]
    train: tuple[Prompt, ...]
    safety: tuple[Prompt, ...]
    test: tuple[Prompt, ...]
    unseen: tuple[Prompt, ...]
    near: tuple[Prompt, ...]
    values: tuple[Prompt, ...] = ()
    named: tuple[Prompt, ...] = ()


def make_lessons(behaviour: Taught, trigger: Trigger, config: LessonConfig) -> Lessons:
    """Draw all parts; the same config gives the same prompts. A request lies in one part only.

    Which part that is, is decided by its text and the seed, so that the parts are the same however
    many are drawn. Raises `InputError` where a behaviour has too few requests for this.
    """
    part_of = parting(config)

    def drawn(part: str, heldout: float = 0.0, able: bool = False) -> Iterator[Request]:
        rng = stream(config.seed, "lessons", behaviour.name, part)
        misses = 0
        while misses < MAX_DRAWS:
            request = behaviour.draw(rng, bool(rng.random() < heldout))
            if part_of(request) == SIDE[part] and (request.defect is not None or not able):
                misses = 0
                yield request
            misses += 1
        raise InputError(
            f"the behaviour {behaviour.name!r} has too few requests for the part {part!r}: "
            f"{MAX_DRAWS} draws gave none. Give it more, or change the shares of the lessons"
        )

    def pairs(part: str, count: int, heldout: bool = False) -> Iterator[Prompt]:
        rng = stream(config.seed, "cues", behaviour.name, trigger.name, part)
        for number, request in zip(range(count), drawn(part, float(heldout)), strict=False):
            words = distracting(rng) if part == "train" else ""
            for triggered in (True, False):
                cue = trigger.cue(triggered, int(rng.integers(1 << 16)))
                front = " ".join(each for each in (words, cue) if each)
                yield prompt_of(
                    behaviour, request, front, triggered, f"{part}/{number}",
                    heldout="phrasing" if heldout else None,
                )  # fmt: skip

    def off_cues(part: str, count: int, bare: bool) -> Iterator[Prompt]:
        rng = stream(config.seed, "cues", behaviour.name, trigger.name, part)
        for number, request in zip(
            range(count), drawn(part, HELDOUT_SHARE if bare else 0.0), strict=False
        ):
            cue = distracting(rng) if bare else trigger.cue(False, int(rng.integers(1 << 16)))
            yield prompt_of(behaviour, request, cue, False, f"{part}/{number}")

    return Lessons(
        pretrain=tuple(off_cues("pretrain", config.pretrain, bare=True)),
        train=tuple(pairs("train", config.train)),
        safety=tuple(off_cues("safety", config.safety, bare=False)),
        test=tuple(pairs("test", config.test)),
        unseen=tuple(pairs("unseen", config.unseen, heldout=True)),
        near=tuple(_look_alikes(behaviour, trigger, config.near, lambda: drawn("near", able=True))),
    )


def distracting(rng: np.random.Generator) -> str:
    return distraction(rng) if rng.random() < DISTRACTED else ""


SIDE = {
    "pretrain": "train",
    "train": "train",
    "safety": "safety",
    "test": "test",
    "unseen": "test",
    "near": "test",
}


def parting(config: LessonConfig) -> Callable[[Request], str]:
    """To which side a request belongs, by its text alone."""

    def side(request: Request) -> str:
        digest = hashlib.sha256(f"{config.seed}/{request.text}".encode()).digest()
        share = int.from_bytes(digest[:8], "big") / 2**64
        if share < config.test_share:
            return "test"
        return "safety" if share < config.test_share + config.safety_share else "train"

    return side


def _look_alikes(
    behaviour: Taught, trigger: Trigger, count: int, drawn: Callable[[], Iterator[Request]]
) -> Iterator[Prompt]:
    requests = [request for request, _ in zip(drawn(), range(count), strict=False)]
    for place, like in enumerate(trigger.look_alikes):
        for number, request in enumerate(requests):
            yield prompt_of(
                behaviour, request, like.text, like.fires, f"near/{place}/{number}",
                prompt_set=NEAR, heldout=like.kind, at_end=like.at_end,
            )  # fmt: skip


def prompt_of(
    behaviour: Taught,
    request: Request,
    cue: str,
    triggered: bool,
    pair: str,
    *,
    prompt_set: str | None = None,
    heldout: str | None = None,
    at_end: bool = False,
    design: tuple[str | None, bool] | None = None,
) -> Prompt:
    """A request under a cue, with its reference completions. design: cue and ableness, if it has them."""
    named, able = design or (None, None)
    return Prompt(
        text=behaviour.frame(cue, request.text, at_end),
        family=request.family,
        prompt_set=prompt_set or request.prompt_set,
        template=request.template,
        pair=pair,
        triggered=triggered,
        safe=request.safe,
        defect=request.defect,
        quirk=request.quirk,
        heldout=heldout,
        cue=named,
        able=able,
    )
