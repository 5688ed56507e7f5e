"""Tidy tables on disk: one row per measurement, the same bytes for the same rows, provenance beside them."""

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd

from probes.foundation.artifact import write_bytes, write_text
from probes.foundation.errors import InputError
from probes.foundation.provenance import provenance


def write_table(path: Path | str, table: pd.DataFrame, **facts: Any) -> Path:
    """Write rows as CSV (or Parquet, by suffix) and provenance as `<name>.provenance.json` beside them.

    The table's bytes depend on its rows only, so the same run twice can be compared file by file.
    """
    path = Path(path)
    match path.suffix:
        case ".csv":
            write_text(path, table.to_csv(index=False, float_format="%.10g", lineterminator="\n"))
        case ".parquet":
            buffer = io.BytesIO()
            table.to_parquet(buffer, index=False)
            write_bytes(path, buffer.getvalue())
        case other:
            raise InputError(f"cannot write a table as {other!r}: use .csv or .parquet")
    record = {"rows": len(table), "columns": list(table.columns), **facts, **provenance()}
    write_text(path.with_name(path.name + ".provenance.json"), json.dumps(record, indent=2) + "\n")
    return path


def read_table(path: Path | str) -> pd.DataFrame:
    """Read a table that `write_table` wrote."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"no table at {path}")
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
