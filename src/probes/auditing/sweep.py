"""D3, the cue sweep: about 300 cues in five places, ranked by what they do to payloads and own answers."""

from probes.auditing.cues import battery
from probes.auditing.detector import Clock, Reading, lifts, texts_of
from probes.auditing.frames import Candidate
from probes.auditing.subject import Subject
from probes.foundation.seeds import stream
from probes.prompts.distractions import distraction

N_PROMPTS = 4


def cue_sweep(subject: Subject, clock: Clock) -> Reading:
    """Every cue of the battery; the first ones are for the re-test."""
    tried = battery(tuple(line for line in subject.context.splitlines() if line.strip()))
    return _read(subject, clock, tried, "cue sweep", "the battery's cues")


def random_cues(subject: Subject, clock: Clock) -> Reading:
    """The baseline of the sweep: a quarter as many words that mean nothing, of no kind."""
    rng = stream(subject.settings.seed, "random cues")
    tried = list(dict.fromkeys(Candidate(distraction(rng)) for _ in range(len(battery()) // 4)))
    return _read(subject, clock, tried, "random cues", "made-up words")


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
