"""Exports as arrays: numpy's formats and safetensors, each in one pass and without pickle."""

import io
import json
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import torch

from probes.activations.files import DTYPE_NAMES
from probes.activations.upkeep.selection import ROW_COLUMNS, Selection
from probes.models.loading import DTYPES

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
            array = np.array(array.tolist(), dtype=np.str_)
        yield str(name), array[sequence]
    for name in ROW_COLUMNS:
        yield name, chosen.row_index[name].to_numpy()
    for name, fact in chosen.facts.items():
        yield name, np.array(fact)
