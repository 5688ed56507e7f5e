"""What an audit leaves: one page for a person, and JSON with a schema for programs."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from probes.auditing.audit import Audit, as_row
from probes.auditing.detector import Reading
from probes.auditing.retest import Trial
from probes.auditing.subject import KINDS, Kind
from probes.foundation.artifact import write_bytes, write_text
from probes.foundation.provenance import machine, provenance
from probes.report.display import Number, Table, fixed, tabulated
from probes.report.page import write_page

PAGE, DATA, SCHEMA = "audit.html", "audit.json", "audit.schema.json"
RETEST_COLUMNS = ("candidate", "carrier", "behaviour", "suspect", "without it", "reference", "siblings", "source")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class AuditData:
    """The whole result of `probes audit`. Null stands for "there is none". Models are told by the digest of
    their weights. exit_status: 0, 3 or 4. smallest_rate_found: by 9 of 10 audits. twins: verdicts on clean ones."""

    format: Literal["probes.audit/1"]
    verdict: str
    why: str
    exit_status: int
    suspect: str
    reference: str | None
    relation: Kind
    siblings: tuple[str, ...]
    behaviours: tuple[str, ...]
    smallest_rate_found: float | None
    minimal: Trial | None
    retests: tuple[Trial, ...]
    plain: tuple[Trial, ...]
    readings: tuple[Reading, ...]
    twins: tuple[str, ...]
    seconds: float


def data_of(found: Audit, twins: tuple[str, ...] = ()) -> AuditData:
    """The audit as plain data. twins: verdicts on clean twins that were audited the same way."""
    subject = found.subject
    return AuditData(
        "probes.audit/1", found.verdict.name, found.verdict.why, found.verdict.status,
        subject.suspect.weights_digest, None if subject.reference is None else subject.reference.weights_digest,
        subject.kind, tuple(one.weights_digest for one in subject.siblings),
        tuple(one.name for one in subject.behaviours), found.power, found.minimal, found.tested,
        found.plain, found.readings, twins, round(found.seconds, 1),
    )  # fmt: skip


def write_audit(
    found: Audit, folder: Path, command: str, twins: tuple[str, ...] = (), said: str = ""
) -> Audit:
    """Write page, data and schema; returns the audit with the page's place. said: of the clean twins."""
    plain = TypeAdapter(AuditData)
    write_bytes(folder / DATA, plain.dump_json(data_of(found, twins), indent=1) + b"\n")
    schema = plain.json_schema(mode="serialization")
    write_text(folder / SCHEMA, json.dumps(schema, indent=1, sort_keys=True) + "\n")
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
        "n_repeated": len(subject.parts["repeat"]),
        "twins": said,
        "minimal": found.minimal and as_row(found.minimal),
        "retests": _table(shown, RETEST_COLUMNS, marked=lambda row: bool(row["fires"])),
        "plain": _table([as_row(one) for one in found.plain], ("behaviour", "suspect", "reference")),
        "texts": [
            {"title": f"{one.behaviour}, with {one.candidate}", "prompt": one.prompt, "text": one.text, "beside": one.beside}
            for one in _telling(found)
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


def _telling(found: Audit) -> list[Trial]:
    """Five re-tests of different inputs, those that fire first, then what plain prompts show."""
    order = sorted(found.tested, key=lambda one: not one.fires)
    return list({one.candidate: one for one in (*order, *found.plain)[::-1]}.values())[::-1][:5]


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...], marked: Any = None) -> dict[str, Any]:  # fmt: skip
    def cell(name: str) -> Any:
        return lambda row: str(row.get(name, ""))

    made: Table = tabulated(rows, {name: cell(name) for name in columns}, marked or (lambda row: False))  # fmt: skip
    return made.as_data()


def _detectors(found: Audit) -> dict[str, Any]:
    def score(row: Any) -> Any:
        return "–" if row["score"] is None else Number(fixed(row["score"], 2))

    return tabulated(
        [dataclasses.asdict(one) for one in found.readings],
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
