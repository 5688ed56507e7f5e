"""Tidy tables on disk: one row per measurement, the same bytes for the same rows, provenance beside them."""

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from probes.foundation.artifact import write_bytes, write_text
from probes.foundation.digest import digest_bytes, short
from probes.foundation.errors import InputError, IntegrityError
from probes.foundation.provenance import provenance
from probes.foundation.untrusted import read_json

SHA256 = "sha256"
FORMULA = re.compile("'*[=+\\-@\t\r\n＝＋－＠]")
"""How a text begins that a spreadsheet would compute, or that was marked as such a one."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf", re.IGNORECASE)


def to_csv(table: pd.DataFrame, **options: Any) -> str:
    """CSV in which no text is a formula to a spreadsheet; `read_csv` gives the same table back.

    A text that begins with = + - @ (also full-width), tab, return or newline gets an apostrophe in
    front, and so does one that begins with apostrophes and then one of these. Numbers stay as they
    are, also as text. options: of `DataFrame.to_csv`.
    """
    given = {"index": False, "float_format": "%.10g", "lineterminator": "\n", **options}
    text = str(_each_text(table, _marked).to_csv(**given))
    if "\r" not in text:
        return text
    # The writer leaves a lone return without quotes, and the reader ends the row there.
    return str(_each_text(table, _marked).to_csv(quoting=csv.QUOTE_NONNUMERIC, **given))


def read_csv(path: Path | str | io.BytesIO, **options: Any) -> pd.DataFrame:
    """Read what `to_csv` wrote. options: of `pandas.read_csv`."""
    return _each_text(pd.read_csv(path, **options), _unmarked)


def _each_text(table: pd.DataFrame, change: Callable[[object], object]) -> pd.DataFrame:
    """The table with its texts changed, those of the header too; columns of numbers are not looked at."""
    changed = {
        place: column.map(change)
        for place, (_, column) in enumerate(table.items())
        if not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column))
        and any(change(value) is not value for value in column.unique())
    }
    heads = [change(name) for name in table.columns]
    if not changed and heads == list(table.columns):
        return table
    columns = [changed.get(place, column) for place, (_, column) in enumerate(table.items())]
    found = pd.concat(columns, axis=1) if columns else table.copy()
    found.columns = pd.Index(heads)
    return found


def _marked(value: object) -> object:
    if isinstance(value, str) and FORMULA.match(value) and not NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def _unmarked(value: object) -> object:
    return (
        value[1:] if isinstance(value, str) and value[:1] == "'" and FORMULA.match(value) else value
    )


def write_table(path: Path | str, table: pd.DataFrame, **facts: Any) -> Path:
    """Write rows as CSV (or Parquet, by suffix) and provenance as `<name>.provenance.json` beside them.

    The table's bytes depend on its rows only, so the same run twice can be compared file by file.
    """
    path = Path(path)
    match path.suffix:
        case ".csv":
            data = to_csv(table).encode()
        case ".parquet":
            buffer = io.BytesIO()
            table.to_parquet(buffer, index=False)
            data = buffer.getvalue()
        case other:
            raise InputError(f"cannot write a table as {other!r}: use .csv or .parquet")
    _beside(path).unlink(missing_ok=True)  # a kill leaves no record of other bytes beside the table
    write_bytes(path, data)
    own = {"rows": len(table), "columns": list(table.columns), SHA256: digest_bytes(data)}
    write_text(_beside(path), json.dumps({**own, **facts, **provenance()}, indent=2) + "\n")
    return path


def read_table(path: Path | str) -> pd.DataFrame:
    """Read a table that `write_table` wrote; raises `IntegrityError` if it was changed since."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"no table at {path}")
    data = path.read_bytes()
    written = read_json(_beside(path)).get(SHA256) if _beside(path).exists() else None
    if written is not None and written != (seen := digest_bytes(data)):
        raise IntegrityError(
            f"{path} was changed after it was written: sha256 {short(seen)}, {_beside(path).name} says "
            f"{short(written)}; run the command that wrote it again"
        )
    given = io.BytesIO(data)
    return pd.read_parquet(given) if path.suffix == ".parquet" else read_csv(given)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".provenance.json")


# Columns that mean the same in every table. `n` counts what a mean is over (prompts, pairs), `seeds` the
# training runs; `p` is corrected for what was searched.
FAMILY, MEMBER, STAGE, SEED = "family", "member", "stage", "seed"
ESTIMATOR, SITE, MEASURE = "estimator", "site", "measure"
VALUE, LOW, HIGH, N, SEEDS, P = "value", "low", "high", "n", "seeds", "p"
INTERVAL = (VALUE, LOW, HIGH)
