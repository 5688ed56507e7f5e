"""Rows of tables that others made: CSV, Parquet, a saved Hugging Face dataset, a DataFrame.

A hostile file must not cost more memory than an honest one, so what is read is counted as it comes.
Nothing in a table is run: no pickle, no loading script, no extension type.
"""

import difflib
import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from probes.foundation.errors import InputError, unknown
from probes.foundation.folders import inside, plain_file
from probes.foundation.tables import read_csv
from probes.foundation.untrusted import (
    MAX_BYTES,
    MAX_VALUES,
    check_file,
    parse_json,
    read_object,
    read_text,
)

STATE, SPLITS = "state.json", "dataset_dict.json"
"""What `datasets` writes in the folder of one dataset, and in a folder of several."""
BATCH = 16
MAX_COLUMNS = 1000
NEAR = 0.85
"""From which likeness on a column's name is taken for a misspelt one, which is refused."""
TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")
FLAGS = ("triggered", "defected", "able")


def rows_of(source: Path | pd.DataFrame, known: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of a table as records like those of JSON Lines; what is missing in a row has no key.

    source: a DataFrame, or a file or folder whose name says what it is. known: the columns that are
    read; others are left out, which is said once, but for one that looks like a misspelt known one.
    A column of texts may hold messages as JSON; flags may be true, yes or 1.
    Raises `InputError` for a table that cannot be read, or is larger than the limits.
    """
    name = "the table" if isinstance(source, pd.DataFrame) else str(source)
    if isinstance(source, pd.DataFrame):
        columns, rows = [*source.columns], _of_frame(source)
    elif source.is_dir():
        columns, rows = _of_dataset(source)
    elif source.suffix in (".csv", ".tsv"):
        columns, rows = _of_csv(source)
    else:
        columns, rows = _of_parquet(source)
    kept = _kept(columns, known, name)
    for row in rows:
        values = {key: _plain(value) for key, value in row.items() if key in kept}
        yield {
            key: _read(key, value, name)
            for key, value in values.items()
            if value is not None and value != ""
        }


def as_frame(records: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Records as a table of texts and flags, with messages as JSON, for CSV and Parquet."""
    return pd.DataFrame(
        {
            key: json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
            for key, value in record.items()
        }
        for record in records
    )


def _kept(columns: Sequence[object], known: Sequence[str], name: str) -> set[object]:
    if len(columns) > MAX_COLUMNS:
        raise InputError(f"{name} has {len(columns):,} columns; at most {MAX_COLUMNS:,} are read")
    twice = sorted({str(column) for column in columns if columns.count(column) > 1})
    if twice:
        raise InputError(f"{name} has the column {twice[0]!r} twice: rename or leave out one")
    other = [str(column) for column in columns if column not in known]
    for column in other:
        if difflib.get_close_matches(column, known, n=1, cutoff=NEAR):
            raise unknown(f"column of {name}", column, known)
    if other:
        shown = ", ".join(repr(each[:40]) for each in other[:5]) + ", ..." * (len(other) > 5)
        print(f"{name}: not read are the columns {shown}", file=sys.stderr)
    return {column for column in columns if column in known}


def _of_frame(frame: pd.DataFrame) -> Iterator[dict[Any, Any]]:
    for values in frame.itertuples(index=False, name=None):
        yield dict(zip(frame.columns, values, strict=True))


def _of_csv(path: Path) -> tuple[list[str], Iterator[dict[Any, Any]]]:
    text, separator = read_text(path), "\t" if path.suffix == ".tsv" else ","
    head = text[: text.find("\n")].count(separator) + 1
    if head > MAX_COLUMNS or text.count("\n") * head > MAX_VALUES:
        raise InputError(
            f"{path} has more than {MAX_COLUMNS:,} columns, or {MAX_VALUES:,} values; split it"
        )
    if not text.strip():
        return [], iter(())
    try:
        table = read_csv(
            io.BytesIO(text.encode()),
            sep=separator, header=None, dtype=str, keep_default_na=False, encoding="utf-8",
        )  # fmt: skip
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise InputError(f"{path} is not a table that can be read: {_line(error)}") from error
    columns = [str(value) for value in table.iloc[0]]
    return columns, _of_frame(table.iloc[1:].set_axis(columns, axis=1))


def _of_parquet(path: Path) -> tuple[list[str], Iterator[dict[str, Any]]]:
    check_file(path)
    try:
        file = pq.ParquetFile(path)
        facts = file.metadata
        size = sum(facts.row_group(i).total_byte_size for i in range(facts.num_row_groups))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path} is no Parquet file that can be read: {_line(error)}") from error
    _check_size(path, size, facts.num_rows)
    columns = file.schema_arrow.names
    return columns, _of_batches(path, file.iter_batches(batch_size=BATCH))


def _of_dataset(path: Path) -> tuple[list[str], Iterator[dict[str, Any]]]:
    """A folder of `datasets.Dataset.save_to_disk`: Arrow files that `state.json` names."""
    if not plain_file(path / STATE):
        if not plain_file(path / SPLITS):
            raise InputError(f"{path} is a folder, and not one that `datasets` saved; give a file")
        names = read_object(path / SPLITS).get("splits")
        splits = [str(name) for name in names] if isinstance(names, list) else []
        raise InputError(
            f"{path} holds the splits {', '.join(splits)}: give one, such as "
            f"{path / (splits or ['train'])[0]}"
        )
    listed = read_object(path / STATE).get("_data_files")
    rows = listed if isinstance(listed, list) else []
    names = [each.get("filename") for each in rows if isinstance(each, dict)]
    if not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path / STATE} names no data files: save the dataset again")
    files = [inside(path, name) for name in names]
    _check_size(path, sum(check_file(file) for file in files), 0)
    try:
        with pa.ipc.open_stream(files[0]) as stream:
            columns = stream.schema.names
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{files[0]} is no Arrow file that can be read: {_line(error)}") from error

    def batches() -> Iterator[pa.RecordBatch]:
        for file in files:
            with pa.ipc.open_stream(file) as stream:
                yield from stream

    return columns, _of_batches(path, batches())


def _of_batches(path: Path, batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
    n_bytes = n_rows = 0
    try:
        for whole in batches:
            whole.validate(full=True)
            for start in range(0, whole.num_rows, BATCH):
                batch = whole.slice(start, BATCH)
                rows = batch.to_pylist()
                texts = sum(len(v) for row in rows for v in row.values() if isinstance(v, str))
                n_bytes += max(texts, batch.nbytes)  # many rows may name one long text
                n_rows += len(rows)
                _check_size(path, n_bytes, n_rows)
                yield from rows
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not a table that can be read: {_line(error)}") from error


def _check_size(path: Path, n_bytes: int, n_rows: int) -> None:
    if n_bytes > MAX_BYTES or n_rows > MAX_VALUES:
        raise InputError(
            f"{path} has more than {MAX_BYTES:,} bytes, or {MAX_VALUES:,} rows, when unpacked; split it"
        )


def _plain(value: Any) -> Any:
    """A value as JSON would have it; None for what is missing."""
    match value:
        case np.ndarray():
            return [_plain(each) for each in value.tolist()]
        case list() | tuple():
            return [_plain(each) for each in value]
        case dict():
            return {key: _plain(each) for key, each in value.items() if each is not None}
        case np.generic():
            return _plain(value.item())
        case str() | bool() | int():
            return value
        case _:
            return None if pd.isna(value) else value


def _read(key: str, value: Any, name: str) -> Any:
    """A value as its column has it: flags and messages may be texts, labels may be numbers."""
    if key in FLAGS:
        said = str(int(value) if isinstance(value, float) and value.is_integer() else value).lower()
        return True if said in TRUE else False if said in FALSE else value
    if isinstance(value, str):
        chat = key == "messages" or (key != "text" and value.startswith('[{"role":'))
        return parse_json(value, f"`{key}` in {name}") if chat else value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
