"""Sequences into groups, the units of work, of loss and of repair; and into batches to run."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import safetensors
import safetensors.numpy

from probes.activations.origin import Extent, first_row_tokens
from probes.foundation.errors import IntegrityError

# What a further forward pass costs beside its tokens, in tokens: launching every layer and reading
# every weight once more. Chosen on a CPU with models of 1 to 30 million parameters; that of a GPU,
# where the weights alone are worth hundreds of tokens, is a guess.
OVERHEAD_TOKENS = {"cpu": 32, "cuda": 1024}


def grouping_order(lengths: np.ndarray, one_each: bool) -> np.ndarray:
    """The order in which sequences are put into groups.

    With one row each, the order in which they were asked for: a group's rows are then read in one
    piece, and as they are small, a group holds so many sequences that like lengths meet in it. With
    a row per token, by descending length: groups are smaller, and a sequence is read in one piece.
    """
    return np.arange(len(lengths)) if one_each else np.argsort(-lengths, kind="stable")


def groups(
    lengths: np.ndarray, n_rows: np.ndarray, one_each: bool, max_tokens: int, max_rows: int
) -> Iterator[np.ndarray]:
    """Indices of sequences, cut where a group would pass either limit.

    The same lengths always give the same groups. A sequence larger than a limit is a group alone.
    """
    order = grouping_order(lengths, one_each)
    tokens = np.concatenate([[0], lengths[order].cumsum()])
    rows = np.concatenate([[0], n_rows[order].cumsum()])
    start = 0
    while start < len(order):
        fitting = min(
            np.searchsorted(tokens, tokens[start] + max_tokens, side="right"),
            np.searchsorted(rows, rows[start] + max_rows, side="right"),
        )
        stop = max(start + 1, int(fitting) - 1)
        yield order[start:stop]
        start = stop


def batches(lengths: Sequence[int], budget: int, overhead: int) -> list[slice]:
    """Sequences in descending length into batches with little padding, as slices of them.

    A batch holds at most `budget` tokens with its padding (a longer sequence is a batch alone), and
    ends where its padding would outgrow `overhead`, the cost of a further batch.
    """
    found: list[slice] = []
    start, padding = 0, 0
    for index, length in enumerate(lengths):
        wider = padding + lengths[start] - length
        if index > start and (
            (index + 1 - start) * lengths[start] > budget or wider > max(overhead, 0)
        ):
            found.append(slice(start, index))
            start, wider = index, 0
        padding = wider
    if len(lengths):
        found.append(slice(start, len(lengths)))
    return found


TENSORS = (
    "sequence_id",
    "tokens",
    "token_offsets",
    "n_prompt_tokens",
    "row_offsets",
    "position",
    "n_averaged",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """The sequences of a group, and the rows that each of them gives.

    sequence_id: `[n, 32]` uint8. tokens: `[n_tokens]` int32, sequence after sequence.
    token_offsets: `[n + 1]` int64. n_prompt_tokens: `[n]` int32, where the completion starts.
    row_offsets: `[n + 1]` int64. position: `[n_rows]` int32, the (first) token of each row.
    n_averaged: `[n_rows]` int32, over how many tokens a row is the mean; 1 for a token's own.
    """

    sequence_id: np.ndarray
    tokens: np.ndarray
    token_offsets: np.ndarray
    n_prompt_tokens: np.ndarray
    row_offsets: np.ndarray
    position: np.ndarray
    n_averaged: np.ndarray

    @property
    def n_sequences(self) -> int:
        return len(self.sequence_id)

    @property
    def n_rows(self) -> int:
        return len(self.position)

    @property
    def n_tokens(self) -> int:
        return len(self.tokens)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sequence."""
        return np.diff(self.token_offsets)

    def sequence(self, index: int) -> np.ndarray:
        """The tokens of one sequence."""
        return self.tokens[self.token_offsets[index] : self.token_offsets[index + 1]]

    def row_tokens(self) -> np.ndarray:
        """The token id of each row; -1 for a row that is the mean of several."""
        sequence = np.repeat(np.arange(self.n_sequences), np.diff(self.row_offsets))
        ids = self.tokens[self.token_offsets[sequence] + self.position]
        return np.where(self.n_averaged == 1, ids, np.int32(-1))

    def to_bytes(self) -> bytes:
        """As a safetensors file; the same layout gives the same bytes."""
        return safetensors.numpy.save({name: getattr(self, name) for name in TENSORS})

    @classmethod
    def from_file(cls, file: Path) -> "Layout":
        try:
            return cls(**safetensors.numpy.load_file(file))
        except (safetensors.SafetensorError, TypeError) as error:
            raise IntegrityError(f"{file} is damaged: {error}") from error


@runtime_checkable
class Sequenced(Protocol):
    """What is laid out of a sequence: its id of 32 bytes, its tokens and where their parts lie."""

    @property
    def id(self) -> bytes: ...
    @property
    def tokens(self) -> np.ndarray: ...
    @property
    def extent(self) -> Extent: ...


def lay_out(sequences: Sequence[Sequenced], positions: str) -> Layout:
    """The rows of these sequences, in their order, for positions in their one spelling."""
    ids, tokens = [each.id for each in sequences], [each.tokens for each in sequences]
    extents = [each.extent for each in sequences]
    rows = [first_row_tokens(positions, extent) for extent in extents]
    counts = np.array([number for _, _, number in rows], dtype=np.int64)
    first = np.array([first for first, _, _ in rows], dtype=np.int32)
    averaged = np.array([each for _, each, _ in rows], dtype=np.int32)
    row_offsets = _offsets(counts)
    within = np.arange(row_offsets[-1]) - np.repeat(row_offsets[:-1], counts)
    return Layout(
        sequence_id=np.frombuffer(b"".join(ids), dtype=np.uint8).reshape(-1, 32),
        tokens=np.concatenate(tokens).astype(np.int32),
        token_offsets=_offsets(np.array([len(ids) for ids in tokens], dtype=np.int64)),
        n_prompt_tokens=np.array([extent.n_prompt for extent in extents], dtype=np.int32),
        row_offsets=row_offsets,
        position=(np.repeat(first, counts) + within).astype(np.int32),
        n_averaged=np.repeat(averaged, counts),
    )


def _offsets(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, dtype=np.int64), counts.cumsum(dtype=np.int64)])
