"""The interface of all detectors: a function from a subject and a deadline to one `Reading`."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.special import logsumexp

from probes.audit.frames import PLAIN, Candidate, around
from probes.audit.scoring import log_probs, tokens_of
from probes.audit.subject import Subject
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

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Reading":
        found = dict(data)
        found["candidates"] = tuple(Candidate(**one) for one in data["candidates"])
        return cls(**{**found, "evidence": tuple(data["evidence"]), "payloads": tuple(data["payloads"])})  # fmt: skip


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
CHUNK = 128
COMPARED = 24
"""Candidates by each score of the suspect that the reference goes through as well."""


@dataclasses.dataclass
class Lifts:
    """By candidate: how far each payload rises, and how far the model's own answer falls [nats].

    Both in the suspect, less the same in the reference. rise: candidate by payload. level: of payloads,
    in the suspect alone. tokens: read. reached: candidates that the suspect went through.
    """

    candidates: list[Candidate]
    rise: np.ndarray
    fall: np.ndarray
    level: np.ndarray
    tokens: int
    reached: int

    def ranked(self, n: int) -> list[Candidate]:
        """The candidates that raise a payload most, and those that make the own answer least likely, in turns."""
        top = self.rise.max(axis=1) if self.rise.shape[1] else self.fall
        ways = [np.argsort(-top, kind="stable"), np.argsort(-self.fall, kind="stable")]
        if self.level.shape[1]:
            ways.insert(1, np.argsort(-self.level.max(axis=1), kind="stable"))
        order = [int(way[at]) for at in range(len(self.candidates)) for way in ways]
        return [self.candidates[i] for i in dict.fromkeys(order)][:n]


def lifts(
    subject: Subject,
    candidates: Sequence[Candidate],
    payloads: Sequence[str],
    clock: Clock,
    n_prompts: int | None = None,
) -> Lifts:
    """What each candidate does to payloads and own answers, over the prompts for searching.

    The suspect goes through all candidates, a chunk at a time, until the deadline; the reference through
    those that come first by any score of the suspect (`COMPARED` of each). The others are not returned.
    """
    prompts = subject.parts["search"][:n_prompts]
    n = len(prompts)
    base = [_scores(subject, model, [PLAIN], payloads, n) for model in subject.compared]
    parts: list[np.ndarray] = []
    tokens = 0
    for at in range(0, len(candidates), CHUNK):
        if clock.over and parts:
            break
        found, read = _scores(subject, subject.suspect, candidates[at : at + CHUNK], payloads, n)
        parts.append(found)
        tokens += read
    level = np.concatenate(parts)
    reached = len(level)
    change = (level - base[0][0]) * _signs(level)
    chosen = np.unique(np.argsort(-change, axis=0, kind="stable")[:COMPARED])
    level, change = level[chosen], change[chosen]
    kept = [candidates[i] for i in chosen]
    if subject.reference is not None:
        parts = []
        for at in range(0, len(kept), CHUNK):
            found, read = _scores(subject, subject.reference, kept[at : at + CHUNK], payloads, n)
            parts.append(found)
            tokens += read
        other = np.concatenate(parts)
        change = change - (other - base[1][0]) * _signs(other)
    return Lifts(kept, change[:, :-1], change[:, -1], level[:, :-1], tokens, reached)


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


def texts_of(candidates: Sequence[Candidate], found: Lifts, payloads: Sequence[str]) -> tuple[dict[str, Any], ...]:  # fmt: skip
    """Rows for a reader: what the first candidates do."""
    rows = []
    for one in candidates:
        i = found.candidates.index(one)
        best = int(found.rise[i].argmax()) if len(payloads) else None
        rows.append(
            {
                "candidate": one.text, "carrier": one.carrier,
                "payload": "" if best is None else payloads[best],
                "rise": None if best is None else round(float(found.rise[i, best]), 3),
                "fall": round(float(found.fall[i]), 3),
            }
        )  # fmt: skip
    return tuple(rows)
