"""Tokens of all sequences while their order is not yet known: on disk, so that memory stays flat."""

import array
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from probes.activations.positions import Extent
from probes.activations.sequences import TokenSequence
from probes.foundation.artifact import TEMPORARY

ID_BYTES = 32


class Spooled(NamedTuple):
    """What of a sequence comes back from the disk."""

    id: bytes
    tokens: np.ndarray
    extent: Extent


class Spool:
    """Sequences in the order they came; per sequence a few dozen bytes of memory.

    Tokens are read back with plain reads: pages of a memory map would count as the process's own.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._ids = bytearray()
        self._offsets = array.array("q", [0])
        self._n_prompt = array.array("i")
        self._first = array.array("i")
        self._stop = array.array("i")

    def __len__(self) -> int:
        return len(self._n_prompt)

    def append(self, sequence: TokenSequence) -> None:
        self._file.write(sequence.tokens.tobytes())
        self._ids += sequence.id
        self._offsets.append(self._offsets[-1] + len(sequence.tokens))
        self._n_prompt.append(sequence.extent.n_prompt)
        first, stop = sequence.extent.span or (-1, -1)
        self._first.append(first)
        self._stop.append(stop)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sequence."""
        return np.diff(np.array(self._offsets))

    @property
    def ids(self) -> np.ndarray:
        """`[n]` of 32 bytes each, comparable."""
        return id_array(bytes(self._ids))

    def __getitem__(self, index: int) -> "Spooled":
        """A sequence, its tokens read back."""
        first, stop = self._offsets[index], self._offsets[index + 1]
        self._file.seek(first * 4)
        tokens = np.frombuffer(self._file.read((stop - first) * 4), dtype=np.int32)
        own = bytes(self._ids[index * ID_BYTES : (index + 1) * ID_BYTES])
        return Spooled(own, tokens, self.extent(index))

    def extent(self, index: int) -> Extent:
        n_tokens = self._offsets[index + 1] - self._offsets[index]
        first, stop = self._first[index], self._stop[index]
        return Extent(self._n_prompt[index], n_tokens, None if first < 0 else (first, stop))


@contextlib.contextmanager
def spooling(folder: Path | None) -> Iterator[Spool]:
    """An empty spool in a temporary file in this folder, gone afterwards."""
    with tempfile.TemporaryFile(dir=folder, prefix=TEMPORARY) as file:
        yield Spool(file)


def id_array(data: bytes) -> np.ndarray:
    """Ids as an array that numpy can sort and search.

    numpy strips zero bytes from the end of such strings; of equal length, they stay distinct.
    """
    return np.frombuffer(data, dtype=f"S{ID_BYTES}")
