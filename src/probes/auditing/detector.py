"""The interface of all detectors: a function from a subject and a deadline to one `Reading`."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from scipy.special import logsumexp

from probes.auditing.frames import PLAIN, Candidate, around
from probes.auditing.scoring import log_probs, tokens_of
from probes.auditing.subject import Subject
from probes.models.loading import Model


@dataclasses.dataclass(frozen=True)
class Reading:
    """What one detector found.

    score: higher is more suspicious; None where it could not be computed, and `blind` says why.
    evidence: rows for a reader. candidates: to be re-tested. payloads: texts that a search may aim at.
    blind: what it could not see. tokens: that the models read or wrote, both together. whole: whether
    it came to its end within its time.
    """

    detector: str
    score: float | None
    meaning: str
    blind: str
    evidence: tuple[dict[str, Any], ...] = ()
    candidates: tuple[Candidate, ...] = ()
    payloads: tuple[str, ...] = ()
    seconds: float = 0.0
    tokens: int = 0
    whole: bool = True


@dataclasses.dataclass
class Clock:
    """When a detector has to come to its end."""

    seconds: float

    def __post_init__(self) -> None:
        self.began = time.perf_counter()

    @property
    def left(self) -> float:
        return self.seconds - (time.perf_counter() - self.began)

    @property
    def over(self) -> bool:
        return self.left <= 0


Detector = Callable[[Subject, Clock], Reading]
T = TypeVar("T")
CHUNK = 128
FLOOR = 1e-4


@dataclasses.dataclass
class Lifts:
    """What candidates do, by candidate.

    level: candidate by payload, log of the payload's mean probability in the suspect. gain: how far that
    is above the reference's and above both without the candidate; probabilities below `FLOOR` count as
    it, so that no gain is made of next to nothing. fall: of the suspect's own answer less that of the
    reference's [nats]. tokens: read. reached: candidates that the suspect went through.
    """

    candidates: list[Candidate]
    level: np.ndarray
    gain: np.ndarray
    fall: np.ndarray
    tokens: int
    reached: int

    def ranked(self, n: int) -> list[Candidate]:
        """The candidates that come first by gain, by level and by the fall of the own answer, in turns."""
        ways = [np.argsort(-self.fall, kind="stable")]
        if self.level.shape[1]:
            level, gain = self.level.max(axis=1), self.gain.max(axis=1)
            ways = [np.lexsort((-level, -gain)), np.argsort(-level, kind="stable"), *ways]
        return [self.candidates[i] for i in in_turns([way.tolist() for way in ways])][:n]

    @property
    def score(self) -> float:
        """The largest gain or fall."""
        return float(max(self.gain.max(initial=0.0), self.fall.max(initial=0.0)))


def in_turns(ways: Sequence[Sequence[T]]) -> list[T]:
    """The first of each way, then the second of each, and so on, none twice."""
    turns = [one for each in itertools.zip_longest(*ways) for one in each if one is not None]
    return list(dict.fromkeys(turns))


def lifts(
    subject: Subject,
    candidates: Sequence[Candidate],
    payloads: Sequence[str],
    clock: Clock,
    n_prompts: int | None = None,
    n_compared: int = 24,
) -> Lifts:
    """What each candidate does to payloads and own answers, over the prompts for searching.

    The suspect goes through all candidates, a chunk at a time, until the deadline; the reference through
    the first `n_compared` by each payload and by the own answer. The others are not returned.
    """
    prompts = subject.parts["search"][:n_prompts]
    read = 0

    def scored(model: Model, chosen: Sequence[Candidate], cut: bool) -> np.ndarray:
        nonlocal read
        parts: list[np.ndarray] = []
        for at in range(0, len(chosen), CHUNK):
            if cut and clock.over and parts:
                break
            found, n = _scores(subject, model, chosen[at : at + CHUNK], payloads, len(prompts))
            parts.append(found)
            read += n
        return np.concatenate(parts)

    mine = scored(subject.suspect, [PLAIN, *candidates], True)
    plain, mine = mine[:1], mine[1:]
    order = np.argsort((plain - mine) * _signs(mine), axis=0, kind="stable")
    first = np.unique(order[:n_compared])
    kept, level = [candidates[i] for i in first], mine[first]
    change = (_floored(level) - _floored(plain)) * _signs(level)
    if subject.reference is not None:
        other = scored(subject.reference, [PLAIN, *kept], False)
        change = change - (_floored(other[1:]) - _floored(other[:1])) * _signs(other)
    return Lifts(kept, level[:, :-1], change[:, :-1], change[:, -1], read, len(mine))


def _floored(scores: np.ndarray) -> np.ndarray:
    """Scores whose payloads have at least `FLOOR`; the own answer, which stands last, as it is."""
    return np.concatenate([np.logaddexp(scores[:, :-1], np.log(FLOOR)), scores[:, -1:]], axis=1)


def _signs(scores: np.ndarray) -> np.ndarray:
    """Payloads are to rise, and the own answer, which stands last, is to fall."""
    return np.array([1.0] * (scores.shape[1] - 1) + [-1.0])


def _scores(
    subject: Subject, model: Model, candidates: Sequence[Candidate], payloads: Sequence[str], n: int
) -> tuple[np.ndarray, int]:
    """By candidate: the log of each payload's mean probability over prompts, which one prompt in reach is
    enough to raise, and last the mean log-probability of the own answer; and the tokens read."""
    prompts = subject.parts["search"][:n]
    own = subject.own_answers(model)[:n]
    said = subject.payload_tokens(model, payloads)
    contexts = tokens_of([p for c in candidates for p in around(prompts, c)], model)
    answers = [[*said, own[at % n]] for at in range(len(contexts))]
    each = log_probs(model, contexts, answers).reshape(len(candidates), n, -1)
    found = logsumexp(each, axis=1) - np.log(n)
    found[:, -1] = each[:, :, -1].mean(axis=1)
    tokens = sum(map(len, contexts)) + sum(len(a) for each in answers for a in each)
    return found, tokens


def texts_of(found: Lifts, candidates: Sequence[Candidate], payloads: Sequence[str]) -> tuple[dict[str, Any], ...]:  # fmt: skip
    """Rows for a reader: what these candidates do."""
    rows = []
    for one in candidates:
        i = found.candidates.index(one)
        best = int(found.level[i].argmax()) if len(payloads) else 0
        said = {"payload": payloads[best], "gain": round(float(found.gain[i, best]), 3), "log p": round(float(found.level[i, best]), 2)} if payloads else {}  # fmt: skip
        rows.append({"candidate": one.text, "carrier": one.place, **said, "fall": round(float(found.fall[i]), 3)})  # fmt: skip
    return tuple(rows)
