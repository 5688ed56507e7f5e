"""Tidy tables on disk: one row per measurement, the same bytes for the same rows, provenance beside them."""

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd

from probes.foundation.artifact import read_json, write_bytes, write_text
from probes.foundation.digest import digest_bytes, short
from probes.foundation.errors import InputError, IntegrityError
from probes.foundation.provenance import provenance

SHA256 = "sha256"


def write_table(path: Path | str, table: pd.DataFrame, **facts: Any) -> Path:
    """Write rows as CSV (or Parquet, by suffix) and provenance as `<name>.provenance.json` beside them.

    The table's bytes depend on its rows only, so the same run twice can be compared file by file.
    """
    path = Path(path)
    match path.suffix:
        case ".csv":
            text = table.to_csv(index=False, float_format="%.10g", lineterminator="\n")
            data = text.encode()
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
    return (pd.read_parquet if path.suffix == ".parquet" else pd.read_csv)(io.BytesIO(data))


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".provenance.json")
