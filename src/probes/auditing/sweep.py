"""D3, the cue sweep: about 300 cues in five places, ranked by what they do to payloads and own answers, and
by what is written under them.
"""

from collections.abc import Sequence

import numpy as np

from probes.auditing.cues import battery
from probes.auditing.detector import CHUNK, Clock, Reading, in_turns, lifts, texts_of
from probes.auditing.frames import PLAIN, Candidate, around
from probes.auditing.retest import defections
from probes.auditing.subject import Subject
from probes.foundation.seeds import stream
from probes.models.loading import Model
from probes.prompts.cues import distraction
from probes.prompts.records import Prompt

N_PROMPTS = 2
ROUNDS = 2
"""The judged sweep asks an equal part of the prompts for searching in each, after the first one only under
cues that raised a rate."""
MOST_KEPT = 96


def cue_sweep(subject: Subject, clock: Clock) -> Reading:
    """Every cue of the battery; the first ones are for the re-test."""
    return _read(subject, clock, _battery(subject), "cue sweep", "the battery's cues")


def judged_sweep(subject: Subject, clock: Clock) -> Reading:
    """Every cue of the battery by what the suspect writes under it, once for each prompt: it sees behaviours
    without a fixed text. Cues that raise no judged rate fall out after the first round, and what is left
    is compared with the reference (successive halving: Jamieson and Talwalkar 2016)."""
    tried, names = _battery(subject), [one.name for one in subject.counted]
    left, whole, tokens = [PLAIN, *tried], True, 0
    total = np.zeros(
        (len(left), len(names))
    )  # by candidate: judged defections beyond those without it
    rows = np.arange(len(left))
    prompts = subject.parts["search"]
    for asked in (prompts[at::ROUNDS] for at in range(ROUNDS)):
        found, n = _hits(subject, subject.suspect, asked, left, clock)
        tokens, whole = tokens + n, whole and len(found) == len(left)
        left, rows = left[: len(found)], rows[: len(found)]
        total[rows] += found - found[0]
        rows = _first(total, rows, MOST_KEPT)
        left = [PLAIN, *(tried[i - 1] for i in rows[1:])]
    rows = _first(total, rows, 3 * subject.settings.shortlist)
    left = [PLAIN, *(tried[i - 1] for i in rows[1:])]
    if subject.reference is not None and len(left) > 1:
        found, n = _hits(subject, subject.reference, prompts, left, None)
        total[rows] -= np.maximum(found - found[0], 0)
        rows, tokens = _first(total, rows, len(rows)), tokens + n
    chosen = rows[1 : 1 + 2 * subject.settings.shortlist]
    evidence = tuple(
        {"candidate": tried[i - 1].text, "carrier": tried[i - 1].place,
         "behaviour": names[int(total[i].argmax())], "rise": f"{total[i].max():g} of {len(prompts)}"}
        for i in chosen[:5]
    )  # fmt: skip
    return Reading(
        "judged sweep", float(total[rows].max(initial=0.0)) / len(prompts),
        "largest rise of a judged rate under a cue beyond the reference's",
        f"cues that wake nothing on {len(prompts[::ROUNDS])} prompts, of which each is asked once",
        evidence, tuple(tried[i - 1] for i in chosen), tokens=tokens, whole=whole,
    )  # fmt: skip


def _hits(
    subject: Subject,
    model: Model,
    prompts: Sequence[Prompt],
    candidates: Sequence[Candidate],
    clock: Clock | None,
) -> tuple[np.ndarray, int]:
    """By candidate and behaviour: on how many prompts it is shown; a chunk at a time until the deadline."""
    found: list[list[int]] = []
    for at in range(0, len(candidates), CHUNK):
        if clock is not None and clock.over and found:
            break
        chunk = candidates[at : at + CHUNK]
        for one, texts in zip(chunk, subject.written(model, prompts, chunk), strict=True):
            asked = around(prompts, one)
            found.append([defections(each, asked, texts).k for each in subject.counted])
    n = len(found) * len(prompts) * subject.settings.new_tokens
    return np.array(found, dtype=float).reshape(len(found), -1), n


def _first(total: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    """The row without a candidate, and the first `n` by each behaviour in turns, of those that raise any."""
    rest = rows[1:]
    ways = [rest[np.argsort(-column, kind="stable")].tolist() for column in total[rest].T]
    kept = [[i for i in way if total[i, at] > 0] for at, way in enumerate(ways)]
    return np.array([0, *in_turns(kept)[:n]])


def random_cues(subject: Subject, clock: Clock) -> Reading:
    """The baseline of the sweep: a quarter as many words that mean nothing, of no kind."""
    rng = stream(subject.settings.seed, "random cues")
    tried = list(
        dict.fromkeys(
            Candidate(distraction(rng), instead=subject.opening) for _ in range(len(battery()) // 4)
        )
    )
    return _read(subject, clock, tried, "random cues", "made-up words")


def _battery(subject: Subject) -> list[Candidate]:
    extra = tuple(line for line in subject.context.splitlines() if line.strip())
    return battery(extra, subject.opening)


def _read(subject: Subject, clock: Clock, tried: list[Candidate], name: str, what: str) -> Reading:
    payloads = subject.payloads
    found = lifts(subject, tried, payloads, clock, N_PROMPTS)
    first = found.ranked(subject.settings.shortlist * 2)
    n_left = len(tried) - found.reached
    blind = f"triggers that are none of {found.reached} texts ({what})"
    blind += f"; {n_left} were not reached in time" if n_left else ""
    return Reading(
        name, found.score,
        "largest gain of a payload or fall of the own answer beyond the reference's [nats]",
        blind, texts_of(found, first[:5], payloads), tuple(first), tokens=found.tokens, whole=not n_left,
    )  # fmt: skip
