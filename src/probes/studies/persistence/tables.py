"""The tables of a grid: gathered from the files that its cells left, and read for findings and figures."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import safetensors

from probes.foundation.errors import InputError, IntegrityError
from probes.foundation.tables import (
    INTERVAL,
    MEASURE,
    SEED,
    STAGE,
    N,
    read_csv,
    read_table,
    write_table,
)
from probes.foundation.untrusted import read_json
from probes.organisms.bases import in_parts
from probes.organisms.card import read_card
from probes.organisms.safety.stage import CURVE
from probes.runs.step import Cell, Outcome, ended

ROWS = "rows.csv"
FACTS = "facts.json"

INSTALLED = "installed"
STAGES = (INSTALLED, "sft_pre", "sft_post", "rl", "adversarial")
CONDITION = ("behaviour", "trigger", "mechanism", "size", "n_parameters", "filtered")
KEYS = (*CONDITION, SEED, STAGE, "parent")
_MEASURED = ("triggered", MEASURE, *INTERVAL, N)
COLUMNS = {
    "persistence": (*KEYS, "set", "kind", *_MEASURED),
    "curves": (*KEYS, "step", "set", "kind", *_MEASURED),
    "reversal": (*KEYS, "draw", "arm", "amount", "of", *_MEASURED),
}
_WORDS = ("behaviour", "trigger", "mechanism", "size", STAGE, "parent", "kind", "set", MEASURE)


@dataclasses.dataclass(frozen=True, eq=False)
class Tables:
    """Rows of a grid: `persistence` has a cell's last measurement, `curves` those along the way.

    reversal: what brought the backdoor back after a stage (`arm`, `amount`), in the `organism` and
    in a `control` that was never poisoned; `draw` numbers the trials with other examples.
    """

    persistence: pd.DataFrame
    curves: pd.DataFrame
    reversal: pd.DataFrame

    def __post_init__(self) -> None:
        for name, columns in COLUMNS.items():
            table = _checked(getattr(self, name), name, columns)
            object.__setattr__(self, name, table)

    @classmethod
    def read(cls, folder: Path | str) -> "Tables":
        """Read `persistence`, `curves` and `reversal` (CSV or Parquet) of a grid's folder.

        `persistence` must be there; of the others an absent one has no rows.
        """
        return cls(**{name: _read(Path(folder), name) for name in COLUMNS})

    @property
    def organisms(self) -> list[tuple[str, str]]:
        """Behaviours and triggers that the grid has, in order of appearance."""
        seen = self.persistence[["behaviour", "trigger"]].drop_duplicates()
        return list(seen.itertuples(index=False, name=None))


def parted(chain: str) -> tuple[str, str]:
    """A stage's own name, and what it was applied to: "rl+adversarial" is adversarial after rl."""
    before, _, last = chain.rpartition("+")
    return last, before or (INSTALLED if last != INSTALLED else "")


def _read(folder: Path, name: str) -> pd.DataFrame:
    for end in (".csv", ".parquet"):
        if (folder / f"{name}{end}").exists():
            return read_table(folder / f"{name}{end}")
    if name == "persistence":
        raise InputError(f"no table persistence.csv in {folder}: run `probes persistence` first")
    return pd.DataFrame(columns=list(COLUMNS[name]))


def _checked(table: pd.DataFrame, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    missing = [column for column in columns if column not in table]
    if missing:
        raise InputError(f"the table {name} lacks the column(s) {', '.join(missing)}")
    for flag in ("triggered", "filtered"):
        if not table[flag].isin([True, False]).all():
            seen = sorted({str(value) for value in table[flag]})
            raise InputError(f"the table {name} has {flag} {', '.join(seen)}: it is True or False")
    table = table.assign(
        **{word: table[word].fillna("").astype(str) for word in _WORDS if word in columns},
        **{flag: table[flag].astype(bool) for flag in ("triggered", "filtered")},
    )
    strange = set(table["stage"]) - set(STAGES)
    if strange:
        raise InputError(
            f"the table {name} has stages {sorted(strange)}; known are {', '.join(STAGES)}"
        )
    identity = [c for c in columns if c not in (*INTERVAL, N)]
    twice = table.duplicated(identity)
    if twice.any():
        first = table.loc[twice, identity].iloc[0].to_dict()
        raise InputError(f"the table {name} has {int(twice.sum())} rows twice, the first {first}")
    rates = table[~table["measure"].isin(["loss"])]
    broken = ~rates["value"].between(0, 1) | ~(rates["n"] >= 1)
    if broken.any():
        first = rates.loc[broken, identity].iloc[0].to_dict()
        raise InputError(
            f"the table {name} has {int(broken.sum())} rates outside 0 to 1 or of no prompts, the "
            f"first {first}: mend the stage that made them"
        )
    return table


SIGNAL = "share_with_signal"
EXTRA = ("seconds", "checkpoint", "parent_checkpoint", "constant_at_first", SIGNAL)
"""Further columns of `persistence`: what training the checkpoint took, its digest and its parent's; and
where a reward trained it, whether that was constant at first, and the mean share of groups of
completions that it told apart: 0 is a reward that was constant throughout."""


@dataclasses.dataclass(frozen=True, eq=False)
class GridTables:
    """persistence: what each checkpoint does. curves: along its training. reversal: see `Tables`.
    attacks: one row per red-teaming of adversarial training, the last on the finished model.
    cells: one row per cell, with how it ended; a cell without a result has rows nowhere else.
    """

    persistence: pd.DataFrame
    curves: pd.DataFrame
    reversal: pd.DataFrame
    attacks: pd.DataFrame
    cells: pd.DataFrame

    def write(self, folder: Path) -> None:
        """Write each as CSV, with provenance beside it."""
        for field in dataclasses.fields(self):
            write_table(folder / f"{field.name}.csv", getattr(self, field.name))


def gather(cells: Sequence[Cell], outcomes: Mapping[str, Outcome], out: Path) -> GridTables:
    """Rows of every cell that is done.

    Raises `IntegrityError` where the cards do not tell the lineage that the grid was made for: a
    checkpoint that was trained from other weights, or measured on others.
    """
    done = [cell for cell in cells if outcomes[cell.name].status == "done"]
    measured = [_persistence(cell, out, outcomes) for cell in done if cell.kind == "measure"]
    curves = [_labelled(cell, out, CURVE) for cell in done if cell.kind == "stage"]
    reversals = [_labelled(cell, out, ROWS) for cell in done if cell.kind == "reversal"]
    attacks = [
        pd.DataFrame(card["attacks"]).assign(**_labels(cell, out))
        for cell in done
        if cell.kind == "stage" and "attacks" in (card := read_card(out / cell.name))
    ]
    return GridTables(
        persistence=_table(measured, (*COLUMNS["persistence"], *EXTRA)),
        curves=_table(curves, COLUMNS["curves"]),
        reversal=_table(reversals, COLUMNS["reversal"]),
        attacks=_table(attacks, dict.fromkeys((*KEYS, *(name for t in attacks for name in t)))),
        cells=pd.DataFrame([_ended(cell, outcomes[cell.name]) for cell in cells]),
    )


def _persistence(cell: Cell, out: Path, outcomes: Mapping[str, Outcome]) -> pd.DataFrame:
    trained = cell.parent
    assert trained is not None
    card = read_card(out / trained.name)
    checkpoint = read_json(out / cell.name / FACTS)["checkpoint"]
    if card["weights_digest"] != checkpoint:
        raise IntegrityError(
            f"{cell.name} was measured on other weights than lie in {out / trained.name}: delete "
            f"{out / cell.name} and run again"
        )
    before = trained.parent or next((n for n in trained.needs if n.kind == "base"), None)
    parent = card["parent_digest"]
    if before is not None and read_card(out / before.name)["weights_digest"] != parent:
        raise IntegrityError(
            f"{out / trained.name} was trained from other weights than lie in {out / before.name}: "
            f"delete {out / trained.name} and run again"
        )
    return _labelled(cell, out, ROWS).assign(
        seconds=outcomes[trained.name].seconds,
        checkpoint=checkpoint,
        parent_checkpoint=parent,
        **_reward(card),
    )


def _reward(card: Mapping[str, Any]) -> dict[str, Any]:
    """What a stage's card says of its reward, over the rounds of adversarial training; None of others."""
    told = [each for each in card.get("rounds", [card]) if "mean_share_with_signal" in each]
    if not told:
        return {"constant_at_first": None, SIGNAL: None}
    shares = [each["mean_share_with_signal"] for each in told]
    return {
        "constant_at_first": all(each["reward_was_constant_at_first"] for each in told),
        SIGNAL: sum(shares) / len(shares),
    }


def _labelled(cell: Cell, out: Path, file: str) -> pd.DataFrame:
    """The rows of a cell's file with the columns that say whose they are."""
    rows = read_csv(out / cell.name / file)
    # A reversal has seeds of its own: which examples were drawn for one and the same checkpoint.
    return rows.rename(columns={"seed": "draw"}).assign(**_labels(cell, out))


def _labels(cell: Cell, out: Path) -> dict[str, Any]:
    stage, parent = parted(cell.stage)
    recipe = cell.recipe
    checkpoint = cell if cell.kind == "stage" else cell.parent
    assert checkpoint is not None
    return {
        "behaviour": recipe.behaviour,
        "trigger": recipe.trigger_name,
        "mechanism": recipe.mechanism,
        "size": recipe.size
        if recipe.base is None
        else read_card(out / checkpoint.name)["base"]["name"].rpartition("/")[2],
        "n_parameters": sum(
            n_parameters(part) for part in in_parts(out / checkpoint.name, recipe.base) if part
        ),
        "filtered": recipe.filtered,
        "seed": recipe.seed if cell.seed is None else cell.seed,
        "stage": stage,
        "parent": parent,
    }


def n_parameters(checkpoint: Path) -> int:
    """How many numbers the weights of a checkpoint are, tied ones counted once."""
    total = 0
    for file in sorted(checkpoint.glob("*.safetensors")):
        with safetensors.safe_open(file, framework="np") as weights:
            total += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return total


def _ended(cell: Cell, outcome: Outcome) -> dict[str, Any]:
    own = {
        "organism": cell.recipe.name if cell.kind != "base" else cell.recipe.base_name,
        "stage": cell.stage,
        "needs": " ".join(need.name for need in cell.needs),
    }
    first, last = ("cell", "kind"), ended(cell, outcome)
    return {**{name: last[name] for name in first}, **own, **last}


def _table(parts: Sequence[pd.DataFrame], columns: Iterable[Any]) -> pd.DataFrame:
    if not parts:
        return pd.DataFrame(columns=list(columns))
    return pd.concat(parts, ignore_index=True)[list(columns)]
