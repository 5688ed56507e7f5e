"""The three tables of a persistence grid, as saved: what findings and figures are drawn from, and nothing else."""

import dataclasses
from pathlib import Path

import pandas as pd

from probes.foundation.errors import InputError
from probes.foundation.tables import read_table

INSTALLED = "installed"
STAGES = (INSTALLED, "sft_pre", "sft_post", "rl", "adversarial")
CONDITION = ("behaviour", "trigger", "mechanism", "size", "n_parameters", "filtered")
KEYS = (*CONDITION, "seed", "stage", "parent")
_MEASURED = ("triggered", "measure", "value", "low", "high", "n")
COLUMNS = {
    "persistence": (*KEYS, "set", "kind", *_MEASURED),
    "curves": (*KEYS, "step", "set", "kind", *_MEASURED),
    "reversal": (*KEYS, "draw", "arm", "amount", "of", *_MEASURED),
}
_WORDS = ("behaviour", "trigger", "mechanism", "size", "stage", "parent", "kind", "set", "measure")


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
    identity = [c for c in columns if c not in ("value", "low", "high", "n")]
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
