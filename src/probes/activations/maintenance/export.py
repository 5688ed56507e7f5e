"""Some rows of some sites of a store, a piece at a time, each with what it is of."""

import dataclasses
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from probes.activations.files import DTYPE_NAMES, take
from probes.activations.labels import SCHEMA
from probes.activations.store import ActivationStore
from probes.foundation.artifact import disk_errors, sync_directory, temporary_name
from probes.foundation.errors import InputError, unknown
from probes.foundation.tables import to_csv
from probes.models.loading import DTYPES
from probes.models.sites import Site

PIECE_BYTES = 32 << 20
ROW_COLUMNS = ("prompt_index", "position", "token", "n_averaged")


@dataclasses.dataclass(frozen=True, eq=False)
class Selection:
    """store: with the chosen sites only. rows: numbers of the chosen rows, in order."""

    store: ActivationStore
    rows: np.ndarray

    @property
    def names(self) -> list[str]:
        """Sites, in order of depth."""
        return list(self.store.widths)

    def width(self, name: str) -> int:
        """Numbers per row; the heads of z lie side by side."""
        return int(np.prod(self.store.widths[name]))

    @cached_property
    def row_index(self) -> pd.DataFrame:
        """What each chosen row is: `prompt_index`, `position`, `token`, `n_averaged`."""
        return self.store.row_index.iloc[self.rows].reset_index(drop=True)

    @property
    def facts(self) -> dict[str, str]:
        """Where the numbers come from, to travel with them."""
        manifest = self.store.manifest
        return {
            "model": manifest.model,
            "origin": json.dumps(manifest.origin.model_dump(mode="json"), sort_keys=True),
            "sites": json.dumps(self.names),
            "store_key": self.store.key,
        }

    def pieces(self) -> Iterator[slice]:
        """The rows in pieces of bounded size, counted over all chosen sites."""
        row_bytes = 4 * sum(self.width(name) for name in self.names)
        step = max(1, PIECE_BYTES // row_bytes)
        for start in range(0, len(self.rows), step):
            yield slice(start, min(start + step, len(self.rows)))

    def values(self, name: str, piece: slice) -> Tensor:
        """`[n, width]` in the stored dtype."""
        return self.store.to_torch(name, self.rows[piece])

    def numbers(self, name: str, piece: slice) -> np.ndarray:
        """The same for numpy, which has no bfloat16: float32 holds it exactly."""
        found = self.values(name, piece)
        return (found.float() if found.dtype == torch.bfloat16 else found).numpy()

    def labelled(self, piece: slice) -> pd.DataFrame:
        """Labels of the sequence of each row, and what the row is."""
        index = self.row_index.iloc[piece].reset_index(drop=True)
        labels = self.store.prompts.iloc[index["prompt_index"]].reset_index(drop=True)
        return pd.concat([labels, index], axis=1)

    def check(self) -> None:
        """Compare the bytes of these sites with their checksums; raises `IntegrityError`.

        Rows that are read singly are not checked on the way, and a copy must be right.
        """
        for number in np.unique(self.store.index.group).tolist():
            n_rows = self.store.manifest.groups[number].n_rows
            for name in self.names if n_rows else ():
                group = np.full(n_rows, number)
                take(self.store.path, self.store.manifest, name, group, np.arange(n_rows))


def select(
    store: ActivationStore, sites: Iterable[Site | str] | None, position: int | None
) -> Selection:
    """Every row of these sites (None: of all), or one row per sequence at `position`.

    position: as in `ActivationStore.matrix`.
    """
    rows = np.arange(store.n_rows) if position is None else store._row_of_each(position)
    return Selection(
        store=store if sites is None else store.at(sites),
        rows=np.arange(store.n_rows) if rows is None else rows,
    )


TEXT_LEFT_OUT = "completion"  # numpy would pad every text to the longest


def write_npy(path: Path, chosen: Selection) -> None:
    """The matrix of one site."""
    with path.open("wb") as file:
        _write_matrix(file, chosen)


def write_npz(path: Path, chosen: Selection) -> None:
    """The matrix `X` of one site, an array per label and per column of `row_index`, and the facts."""
    with zipfile.ZipFile(path, "w") as archive:
        # A fixed date, so that the same activations give the same bytes.
        with archive.open(zipfile.ZipInfo("X.npy"), "w", force_zip64=True) as entry:
            _write_matrix(entry, chosen)
        for name, array in _label_arrays(chosen):
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def write_safetensors(path: Path, chosen: Selection) -> None:
    """A matrix per site, the columns of `row_index`, and per sequence its id and `triggered`."""
    dtype = DTYPES[chosen.store.manifest.origin.dtype]
    index = chosen.row_index
    small = {name: index[name].to_numpy() for name in ROW_COLUMNS}
    small["sequence_id"] = chosen.store.index.sequence_id
    small["triggered"] = chosen.store.prompts["triggered"].to_numpy(dtype=np.bool_)
    header: dict[str, object] = {"__metadata__": chosen.facts}
    end = 0
    for name in chosen.names:
        shape = [len(chosen.rows), chosen.width(name)]
        end = _describe(header, name, DTYPE_NAMES[dtype], shape, dtype.itemsize, end)
    for name, array in small.items():
        kind = {"b": "BOOL", "u": "U8"}.get(array.dtype.kind, f"I{8 * array.dtype.itemsize}")
        end = _describe(header, name, kind, list(array.shape), array.dtype.itemsize, end)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in chosen.names:
            for piece in chosen.pieces():
                values = chosen.values(name, piece).contiguous()
                file.write(values.view(torch.uint8).numpy().data)
        for array in small.values():
            file.write(np.ascontiguousarray(array).data)


def _describe(
    header: dict[str, object], name: str, kind: str, shape: list[int], itemsize: int, start: int
) -> int:
    """Enter a tensor into the header; returns where its bytes end."""
    end = start + int(np.prod(shape, dtype=np.int64)) * itemsize
    header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    return end


def _write_matrix(file: IO[bytes] | io.BufferedIOBase, chosen: Selection) -> None:
    [name] = chosen.names
    empty = chosen.numbers(name, slice(0, 0))
    np.lib.format.write_array_header_1_0(
        file,
        {
            "descr": np.lib.format.dtype_to_descr(empty.dtype),
            "fortran_order": False,
            "shape": (len(chosen.rows), chosen.width(name)),
        },
    )
    for block in _blocks(chosen, name):
        file.write(np.ascontiguousarray(block).data)


def _blocks(chosen: Selection, name: str) -> Iterable[np.ndarray]:
    return (chosen.numbers(name, piece) for piece in chosen.pieces())


def _label_arrays(chosen: Selection) -> Iterator[tuple[str, np.ndarray]]:
    """Labels of the sequence of each row, then what the row is, then the facts."""
    labels = chosen.store.prompts.drop(columns=TEXT_LEFT_OUT)
    sequence = chosen.row_index["prompt_index"].to_numpy()
    for name, column in labels.items():
        array = column.to_numpy()
        if array.dtype.kind not in "biu":
            array = np.array(["" if each is None else each for each in array.tolist()], np.str_)
        yield str(name), array[sequence]
    for name in ROW_COLUMNS:
        yield name, chosen.row_index[name].to_numpy()
    for name, fact in chosen.facts.items():
        yield name, np.array(fact)


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


WRITERS: dict[str, Callable[[Path, Selection], None]] = {
    ".npy": write_npy,
    ".npz": write_npz,
    ".parquet": write_parquet,
    ".safetensors": write_safetensors,
    ".csv": write_csv,
}
ONE_SITE = (".npy", ".npz", ".csv")


def export(
    store: ActivationStore,
    out: Path | str,
    sites: Iterable[Site | str] | None = None,
    position: int | None = None,
) -> Path:
    """Write rows of a store to one file, whose suffix says what it will be.

    Every row that the store (or the view of it) has, sequence after sequence; with `position`, one
    row per sequence, as `ActivationStore.matrix` gives it. sites: None for all; .npy, .npz and .csv
    hold one site.

    .npy: the matrix alone. .npz: the matrix `X`, and an array for each label and each column of
    `row_index`; the text of completions is left out. .parquet and .csv: a table of labels,
    position and token, with a list of numbers per site, or a column per feature. .safetensors: a
    matrix per site in the stored dtype, and the columns of `row_index` as tensors.

    All but .csv and .npy say which model and store they come from. Memory stays bounded by a piece
    of the rows. Every number is checked against its checksum. Raises `InputError` for another
    suffix, for a file that exists, and for a site or a position that the store does not have.
    """
    out = Path(out)
    if out.suffix not in WRITERS:
        raise unknown("suffix of an export", out.suffix, WRITERS)
    if os.path.lexists(out):
        raise InputError(f"{out} is there already; choose another name, or delete it")
    chosen = select(store, sites, position)
    if out.suffix in ONE_SITE and len(chosen.names) != 1:
        raise InputError(
            f"a {out.suffix} file holds one site; choose one of: {', '.join(chosen.names)}; or "
            "write .parquet or .safetensors"
        )
    chosen.check()
    temporary = temporary_name(out)
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            WRITERS[out.suffix](temporary, chosen)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(out)
            sync_directory(out.parent)
        finally:
            temporary.unlink(missing_ok=True)
    return out
