"""Exports as tables: a row per row of activations, with its labels, in pieces."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from probes.activations.labels import SCHEMA
from probes.activations.upkeep.selection import Selection
from probes.foundation.tables import to_csv

ROW_FIELDS = [
    ("prompt_index", pa.int64()),
    ("position", pa.int32()),
    ("token", pa.int32()),
    ("n_averaged", pa.int32()),
]
NUMBERS = {"float32": pa.float32(), "float16": pa.float16(), "bfloat16": pa.float32()}


def write_parquet(path: Path, chosen: Selection) -> None:
    """Labels, position and token, and a list of fixed length per site; a row group per piece."""
    number = NUMBERS[chosen.store.manifest.origin.dtype]
    described = pa.schema([*SCHEMA, *ROW_FIELDS])
    schema = described
    for name in chosen.names:
        schema = schema.append(pa.field(name, pa.list_(number, chosen.width(name))))
    schema = schema.with_metadata(chosen.facts)
    texts = [field.name for field in SCHEMA if field.type == pa.string()]
    with pq.ParquetWriter(path, schema, use_dictionary=texts) as writer:
        for piece in chosen.pieces():
            table = pa.Table.from_pandas(
                chosen.labelled(piece), schema=described, preserve_index=False
            )
            for name in chosen.names:
                flat = pa.array(chosen.numbers(name, piece).reshape(-1), type=number)
                values = pa.FixedSizeListArray.from_arrays(flat, chosen.width(name))
                table = table.append_column(schema.field(name), values)
            writer.write_table(table.cast(schema))


def write_csv(path: Path, chosen: Selection) -> None:
    """Labels, position and token, and a column per feature, with every digit that tells."""
    [name] = chosen.names
    features = [f"{name}[{i}]" for i in range(chosen.width(name))]
    with path.open("w", encoding="utf-8", newline="") as file:
        for piece in chosen.pieces():
            numbers = pd.DataFrame(chosen.numbers(name, piece), columns=features)
            table = pd.concat([chosen.labelled(piece), numbers], axis=1)
            options = {"float_format": None, "header": piece.start == 0}
            file.write(to_csv(table, **options))
