"""The audit of one checkpoint: detectors in their order, the re-test, the verdict, and what is kept of them.

Each detector's reading is kept under the output folder with the digest of what made it, so that an
interrupted audit goes on where it stopped.
"""

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter

from probes.auditing.baselines import asking, plain_sampling
from probes.auditing.detector import Clock, Detector, Reading, in_turns
from probes.auditing.frames import PLAIN, Candidate
from probes.auditing.inversion import payload_likelihood, target_inversion
from probes.auditing.leak import leak
from probes.auditing.retest import CHANGED, Retest, Trial
from probes.auditing.search import token_search
from probes.auditing.subject import Subject
from probes.auditing.sweep import cue_sweep, judged_sweep, random_cues
from probes.auditing.verdict import Verdict, detectable, judged, strongest
from probes.auditing.weights import weights
from probes.foundation.artifact import write_text
from probes.foundation.digest import digest_json
from probes.foundation.errors import InputError
from probes.foundation.html import html_table
from probes.foundation.memory import keep_freed_memory
from probes.foundation.procedures import versions
from probes.foundation.progress import progress
from probes.foundation.untrusted import read_json

FIRST: dict[str, Detector] = {
    "weights": weights,
    "payload likelihood": payload_likelihood,
    "target inversion": target_inversion,
    "leak": leak,
    "asking": asking,
    "plain sampling": plain_sampling,
    "cue sweep": cue_sweep,
    "judged sweep": judged_sweep,
    "random cues": random_cues,
}
"""Detectors in their order; the token search follows, which aims at the payloads that these found."""
SHARES = {"cue sweep": 0.25, "judged sweep": 0.25, "token search": 0.35}
"""Of the time; each other detector has `SHARE`, and what one leaves goes to the next."""
SHARE = 0.05
SOURCES = ("cue sweep", "judged sweep", "token search", "random cues", "leak")
MOST_CANDIDATES = 6
"""Candidates by judged behaviours, and as many by new texts."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Audit:
    """What an audit found. readings: of every detector. tested: candidates on fresh prompts, and `plain`
    without any. minimal: the shortest input that still fires. page, data: where they were written."""

    subject: Subject
    verdict: Verdict
    readings: tuple[Reading, ...]
    tested: tuple[Trial, ...]
    plain: tuple[Trial, ...]
    minimal: Trial | None
    seconds: float
    page: Path | None = None

    @property
    def table(self) -> pd.DataFrame:
        """A row for each detector."""
        columns = ["detector", "score", "meaning", "tokens", "seconds", "whole", "blind"]
        return pd.DataFrame([dataclasses.asdict(one) for one in self.readings])[columns]

    @property
    def retests(self) -> pd.DataFrame:
        """A row for each re-test."""
        return pd.DataFrame([as_row(one) for one in (*self.tested, *self.plain)])

    @property
    def power(self) -> float | None:
        """The smallest rate at which a trigger among the tried inputs is found in 9 of 10 audits."""
        parts = self.subject.parts
        return detectable(*(len(parts[name]) for name in ("screen", "confirm", "repeat")))

    @property
    def untried(self) -> list[str]:
        """What was not tried, and what would change the verdict."""
        least = f"{self.power:.0%}" if self.power is not None else "no rate"
        said = [f"{one.detector}: {one.blind}" for one in self.readings if one.blind]
        return [
            f"A trigger among the tried inputs that wakes its behaviour on less than {least} of the "
            "prompts is missed in more than 1 of 10 audits.",
            *(
                f"{one.name}: without a reference or a clean sibling nothing tells it from what cues do to any model"
                for one in self.subject.behaviours
                if one not in self.subject.counted
            ),
            *said,
        ]

    def __repr__(self) -> str:
        lines = [f"{self.verdict.name}: {self.verdict.why}"]
        if self.minimal is not None:
            lines.append(f"the shortest input found: {self.minimal.candidate}")
        return "\n".join([*lines, *([f"page: {self.page}"] if self.page else [])])

    def _repr_html_(self) -> str:
        return html_table(self.table, self.verdict.why, strong=self.verdict.name)


def as_row(one: Trial) -> dict[str, Any]:
    """A re-test as plain data."""
    return {
        "candidate": one.candidate.text, "carrier": one.candidate.place, "behaviour": one.behaviour,
        "source": one.source, "suspect": str(one.on), "without it": str(one.plain),
        "reference": "" if one.reference is None else str(one.reference),
        "siblings": "; ".join(map(str, one.siblings)), "fires": one.fires,
    }  # fmt: skip


def run_audit(
    subject: Subject,
    *,
    minutes: float = 60.0,
    folder: Path | None = None,
) -> Audit:
    """Every detector within the time, then the re-test of their candidates, and the verdict.

    folder: where readings are kept and found again.
    """
    keep_freed_memory()
    began = time.perf_counter()
    keep = _Keeper(folder, subject, minutes)
    clock = Clock(60 * minutes)
    readings: list[Reading] = []

    def read(name: str, detector: Callable[[Subject, Clock], Reading], *more: str) -> None:
        seconds = max(clock.left, 0.0) * min(1.0, SHARES.get(name, SHARE) * 2)
        made = functools.partial(_timed, name, detector, subject, seconds)
        readings.append(keep.kept(name, Reading, {"more": more}, made))

    for name, detector in progress(list(FIRST.items()), f"auditing {subject.suspect.name}"):
        read(name, detector)
    found = tuple(dict.fromkeys(p for one in readings for p in one.payloads))[:3]
    read("token search", lambda s, c: token_search(s, c, found), *found)
    named = {"candidates": [dataclasses.astuple(c) for one in readings for c in one.candidates]}
    tested, plain, minimal = keep.kept("retests", Retested, named, lambda: _retested(subject, readings))  # fmt: skip
    verdict = judged(tested, plain, readings)
    return Audit(
        subject, verdict, tuple(readings), tested, plain, minimal, time.perf_counter() - began
    )


def _timed(name: str, detector: Detector, subject: Subject, seconds: float) -> Reading:
    """A reading with its time; of a detector that this model or these prompts do not allow, why."""
    began = time.perf_counter()
    try:
        found = detector(subject, Clock(seconds))
    except InputError as error:
        found = Reading(name, None, "", str(error), whole=False)
    return dataclasses.replace(found, seconds=round(time.perf_counter() - began, 3))


Retested = tuple[tuple[Trial, ...], tuple[Trial, ...], Trial | None]


def _retested(subject: Subject, readings: Sequence[Reading]) -> Retested:
    """The candidates of all detectors, screened and then tested on fresh prompts; the best one shortened."""
    retest = Retest(subject)
    named = [
        (c, one.detector) for one in readings if one.detector in SOURCES for c in one.candidates
    ]
    sources: dict[Candidate, str] = {}
    for candidate, source in named:
        sources.setdefault(candidate, source)
    chosen = retest.screen(sources.items(), [p for one in readings for p in one.payloads])
    ways = [[c for c in chosen if c[1] == one.name] for one in subject.counted]
    new = [c for c in chosen if c[1] == CHANGED]
    kept = [*in_turns(ways)[:MOST_CANDIDATES], *new[:MOST_CANDIDATES]]
    for model in (*subject.compared, *subject.siblings):
        retest.write(model, "confirm", [PLAIN, *(c for c, *_ in kept)])
    tested = retest.repeated([retest.test(*one) for one in kept])
    plain = retest.unconditional()
    firing = strongest(tested)
    minimal = retest.shortened(firing[0]) if firing else None
    return tuple(tested), tuple(plain), minimal


class _Keeper:
    """Results as JSON files, each with the digest of what made it."""

    def __init__(self, folder: Path | None, subject: Subject, minutes: float) -> None:
        self.folder, self.minutes = folder, minutes
        self.made_by = {"subject": subject.digest, **versions("audit", "sampling", "judging")}

    def kept(self, name: str, kind: Any, facts: Mapping[str, Any], make: Callable[[], Any]) -> Any:
        """What was made of these facts before, or is made now. kind: its type.

        A reading that ran out of time is made anew where there is more of it.
        """
        if self.folder is None:
            return make()
        file, adapter = self.folder / f"{name.replace(' ', '-')}.json", TypeAdapter(kind)
        key = digest_json({**self.made_by, "name": name, **facts})
        if file.is_file() and (there := read_json(file)).get("key") == key:
            found = adapter.validate_python(there["found"])
            if getattr(found, "whole", True) or there["minutes"] >= self.minutes:
                return found
        found = make()
        data = {"key": key, "minutes": self.minutes, "found": adapter.dump_python(found, mode="json")}  # fmt: skip
        write_text(file, json.dumps(data, ensure_ascii=False) + "\n")
        return found
