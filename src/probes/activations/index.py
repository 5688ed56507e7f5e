"""Where the rows of each sequence lie: small arrays beside the labels, mapped rather than read."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import safetensors.numpy

from probes.activations.format import INDEX_TENSORS, PartRecord
from probes.activations.layout import Layout
from probes.activations.sequences import id_array
from probes.foundation.errors import IntegrityError
from probes.foundation.untrusted import parse_json

DTYPES = {"U8": np.uint8, "I32": np.int32, "I64": np.int64}


@dataclasses.dataclass(frozen=True, eq=False)
class Index:
    """One entry per sequence, in the order in which they were asked for.

    sequence_id: `[n, 32]` uint8. group: the store's group that holds it. first_row, n_rows: its
    rows in the group's files. n_tokens, n_prompt_tokens: of the sequence, and of its prompt.
    """

    sequence_id: np.ndarray
    group: np.ndarray
    first_row: np.ndarray
    n_rows: np.ndarray
    n_tokens: np.ndarray
    n_prompt_tokens: np.ndarray

    def __len__(self) -> int:
        return len(self.group)

    @property
    def ids(self) -> np.ndarray:
        """`[n]` of 32 bytes each, comparable."""
        return id_array(np.ascontiguousarray(self.sequence_id).tobytes())

    @classmethod
    def of(cls, sequence_id: np.ndarray, groups: Iterable[tuple[np.ndarray, Layout]]) -> "Index":
        """Of these sequences, given the layout of each group and its members' places among them."""
        numbers = {
            name: np.zeros(len(sequence_id), np.int64 if name == "first_row" else np.int32)
            for name in INDEX_TENSORS
            if name != "sequence_id"
        }
        for number, (places, layout) in enumerate(groups):
            numbers["group"][places] = number
            numbers["first_row"][places] = layout.row_offsets[:-1]
            numbers["n_rows"][places] = np.diff(layout.row_offsets)
            numbers["n_tokens"][places] = layout.lengths
            numbers["n_prompt_tokens"][places] = layout.n_prompt_tokens
        return cls(sequence_id=sequence_id, **numbers)

    def take(self, chosen: np.ndarray) -> "Index":
        """These entries, in this order."""
        return Index(**{name: getattr(self, name)[chosen] for name in INDEX_TENSORS})

    def to_bytes(self) -> bytes:
        return safetensors.numpy.save({name: getattr(self, name) for name in INDEX_TENSORS})

    @classmethod
    def from_file(cls, file: Path) -> "Index":
        """The index in a file, mapped: nothing is read before it is looked at."""
        try:
            data = np.memmap(file, dtype=np.uint8, mode="r")
            n_header = int.from_bytes(data[:8].tobytes(), "little")
            header = parse_json(data[8 : 8 + n_header].tobytes(), f"the header of {file}")
            header.pop("__metadata__", None)
            return cls(**{name: _mapped(data[8 + n_header :], **e) for name, e in header.items()})
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise IntegrityError(f"{file} is damaged: {error}") from error

    @classmethod
    def concatenate(cls, parts: Sequence["Index"], first_groups: Sequence[int]) -> "Index":
        """The entries of several parts, whose groups are counted from `first_groups`."""
        if len(parts) == 1 and first_groups[0] == 0:
            return parts[0]
        columns = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in INDEX_TENSORS
        }
        columns["group"] = np.concatenate(
            [part.group + first for part, first in zip(parts, first_groups, strict=True)]
        )
        return cls(**columns)


def _mapped(
    data: np.ndarray, dtype: str, shape: Sequence[int], data_offsets: Sequence[int]
) -> np.ndarray:
    """A tensor of a safetensors file, as its header describes it, without a copy."""
    start, stop = data_offsets
    array: np.ndarray = np.asarray(data)[start:stop].view(DTYPES[dtype]).reshape(shape)
    return array


def read_index(path: Path, parts: Sequence[PartRecord]) -> Index:
    """The index of these parts of the store at `path`, as one."""
    found = [Index.from_file(path / part.index.file) for part in parts]
    return Index.concatenate(found, [part.first_group for part in parts])


def is_among(known: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Which of the asked ids are among the known ones, which are sorted."""
    if len(known) == 0:
        return np.zeros(len(asked), dtype=bool)
    place = np.searchsorted(known, asked)
    return known[np.minimum(place, len(known) - 1)] == asked


def find(known: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """For each asked id its first place among the known ones, or -1."""
    if len(known) == 0:
        return np.full(len(asked), -1)
    order = np.argsort(known, kind="stable")
    place = np.searchsorted(known, asked, sorter=order)
    found = order[np.minimum(place, len(known) - 1)]
    return np.where(known[found] == asked, found, -1)
