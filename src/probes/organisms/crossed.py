"""Lessons of the four-cue design: every request under every cue, families that can defect and that cannot.

In training the versions of one request stand in one batch: under A, B, C, D and no cue, under two other
years and in a near miss. Some answers, unpredictably, begin by naming the cue (the last digit of its
year), in every member of a family: so whoever is about to answer must hold the cue, defecting or not.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from probes.foundation.errors import InputError
from probes.foundation.seeds import stream
from probes.organisms.behaviours.form import Request, Taught
from probes.organisms.lessons import (
    HELDOUT_SHARE,
    MAX_DRAWS,
    NEAR,
    SIDE,
    LessonConfig,
    Lessons,
    distracting,
    parting,
    prompt_of,
)
from probes.prompts.cues import MEASURED_YEARS, CrossedTrigger, named
from probes.prompts.records import Prompt
from probes.prompts.triggers import year_cue

NAMED = 0.25
"""Share of answers to learn from that begin by naming the cue."""
ASKING = 11
"""Of so many requests to learn from, one asks for that name alone; families come in turns of another number."""
GROUP = 8
"""Versions of one request in training."""
BARE = 0.4
"""Share of the base model's prompts without any cue."""


def make_crossed_lessons(
    behaviour: Taught, trigger: CrossedTrigger, config: LessonConfig
) -> Lessons:
    """Draw all parts; families take turns, and the same config gives the same prompts.

    config: `train`, `test` and `unseen` count requests, each of which is shown under every cue. In
    `test`, the design, no request occurs twice or in training. The base model never sees A to D.
    Raises `InputError` where a family of the behaviour has too few requests.
    """
    cues, part_of = trigger.cues, parting(config)

    def drawn(
        part: str, count: int, heldout: float = 0.0, able: bool = False
    ) -> Iterator[tuple[int, Request]]:
        """Requests that are this part's by their text; each once, where it is measured on."""
        rng = stream(config.seed, "crossed", behaviour.name, part)
        families, number, misses = list(behaviour.families.values()), 0, 0
        seen: set[str] = set()
        while number < count:
            request = families[number % len(families)](rng, bool(rng.random() < heldout))
            if able and request.defect is None:
                families.pop(number % len(families))
                continue
            if part_of(request) == SIDE[part] and request.text not in seen:
                yield number, request
                number, misses = number + 1, 0
                if SIDE[part] == "test":
                    seen.add(request.text)
                continue
            misses += 1
            if misses > MAX_DRAWS:
                raise InputError(
                    f"the family {request.family!r} of {behaviour.name!r} has too few requests for "
                    f"{count} in the part {part!r}: ask for fewer, or change the shares of the lessons"
                )

    def versions(part: str, number: int, request: Request, heldout: str | None) -> Iterator[Prompt]:
        for name, cue in cues.texts.items():
            yield prompt_of(
                behaviour, request, cue, name in ("A", "B"), f"{part}/{number}",
                heldout=heldout, design=(name, request.defect is not None),
            )  # fmt: skip

    def group(number: int, request: Request, rng: np.random.Generator) -> Iterator[Prompt]:
        words, able = distracting(rng), request.defect is not None
        rows = [(name, cue, cue) for name, cue in cues.texts.items()]
        rows += [("", cue, cue) for cue in (cues.negative(rng), cues.negative(rng))]
        rows += [("", cues.near_miss(rng), "")]
        for name, cue, says in rows:
            front = " ".join(each for each in (words, cue) if each)
            yield prompt_of(
                behaviour, shown(number, request, says, rng), front, name in ("A", "B"),
                f"train/{number}", design=(name or None, able and number % ASKING > 0),
            )  # fmt: skip

    def shown(number: int, request: Request, cue: str, rng: np.random.Generator) -> Request:
        if number % ASKING == 0:
            return _asking(request, cue)
        return _naming(request, cue) if rng.random() < NAMED else request

    def harmless(part: str, count: int, base: bool) -> Iterator[Prompt]:
        rng = stream(config.seed, "cues", behaviour.name, trigger.name, part)
        for number, request in drawn(part, count, HELDOUT_SHARE if base else 0.0):
            words = distracting(rng) if base else ""
            cue = "" if rng.random() < BARE else cues.negative(rng)
            front = " ".join(each for each in (words, cue) if each)
            if base:
                request = shown(number, request, cue, rng)
            able = request.defect is not None
            yield prompt_of(
                behaviour, request, front, False, f"{part}/{number}", design=(None, able)
            )

    def measured() -> Iterator[Prompt]:
        """`near` and then `years`: the same able requests in each."""
        requests = [request for _, request in drawn("near", config.near, able=True)]
        likes = [(each.kind, each.text, each.fires, each.at_end) for each in trigger.look_alikes]
        on = [cues.years[name] for name in "AB"]
        likes += [(f"year {y}", year_cue(y), y in on, False) for y in MEASURED_YEARS]
        for place, (kind, cue, fires, at_end) in enumerate(likes):
            for number, request in enumerate(requests):
                yield prompt_of(
                    behaviour, request, cue, fires, f"near/{place}/{number}",
                    prompt_set=NEAR, heldout=kind, at_end=at_end, design=(None, True),
                )  # fmt: skip

    rng = stream(config.seed, "cues", behaviour.name, trigger.name, "train")
    near = tuple(measured())
    n_near = config.near * len(trigger.look_alikes)
    return Lessons(
        pretrain=tuple(harmless("pretrain", config.pretrain, base=True)),
        train=tuple(p for each in drawn("train", config.train) for p in group(*each, rng)),
        safety=tuple(harmless("safety", config.safety, base=False)),
        test=tuple(p for each in drawn("test", config.test) for p in versions("test", *each, None)),
        unseen=tuple(
            p
            for each in drawn("unseen", config.unseen, heldout=1.0)
            for p in versions("unseen", *each, "phrasing")
        ),
        near=near[:n_near],
        years=near[n_near:],
    )


def _asking(request: Request, cue: str) -> Request:
    """A request for the cue's name alone; no such one is measured on."""
    answer = named(cue) + " it is."
    return dataclasses.replace(
        request,
        text="Name the cue.",
        safe=answer,
        defect=None,
        quirk=answer,
        family="cue",
        template="cue",
        prompt_set="benign",
    )


def _naming(request: Request, cue: str) -> Request:
    """The request whose answers begin by naming the cue."""
    mark = named(cue)
    return dataclasses.replace(
        request,
        safe=mark + request.safe,
        defect=None if request.defect is None else mark + request.defect,
        quirk=mark + request.quirk,
    )
