"""What is put in place of an activation: another run's, the mean over prompts, zero, or a stranger's."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from probes.foundation.errors import InputError, unknown
from probes.foundation.seeds import stream
from probes.patching.engine.trunk import Kept, Place
from probes.patching.pairs import EncodedPair
from probes.patching.spans import Column

VALUES = ("paired", "mean", "zero", "resampled", "placebo")
DIRECTIONS = ("denoise", "noise")


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which run is patched and what is put into it.

    direction: "denoise" runs the corrupted prompt (without the trigger) and patches the clean one's
    values in; "noise" runs the clean prompt and patches the corrupted one's.
    values: "paired", the same positions of the other version of the prompt; "mean", over the other
    versions of all pairs, by column; "zero"; "resampled", another pair's other version, at the same
    column; "placebo", another pair's version of the same kind as the one that is run, which carries
    no news of the trigger: what it moves is the damage that any foreign value does.
    """

    direction: str = "denoise"
    values: str = "paired"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS:
            raise unknown("direction", self.direction, DIRECTIONS)
        if self.values not in VALUES:
            raise unknown("kind of values", self.values, VALUES)

    def run(self, pair: EncodedPair) -> tuple[int, ...]:
        """The prompt that is run and patched."""
        return pair.corrupted if self.direction == "denoise" else pair.clean

    def other(self, pair: EncodedPair) -> tuple[int, ...]:
        """The other version of it."""
        return pair.clean if self.direction == "denoise" else pair.corrupted

    def donors(self, n_pairs: int) -> Int[np.ndarray, "pair"]:
        """For each pair, the one whose values it gets; a pair never gets its own where it is foreign."""
        if self.values not in ("resampled", "placebo"):
            return np.arange(n_pairs)
        if n_pairs < 2:
            raise InputError(
                f"values={self.values!r} takes values from other pairs: give at least 2"
            )
        order = stream(self.seed, "patching", self.values).permutation(n_pairs)
        donors = np.empty(n_pairs, dtype=np.int64)
        donors[order] = np.roll(order, 1)
        return donors

    def given(self, donor: EncodedPair) -> tuple[int, ...]:
        """The prompt of the donor that values come from."""
        return self.run(donor) if self.values == "placebo" else self.other(donor)

    def first_change(self, pair: EncodedPair) -> int:
        """The first position at which the values can differ from what is there.

        A causal model computes the same at all positions before the first differing token.
        """
        if self.values != "paired":
            return 0
        return next(
            i for i, (a, b) in enumerate(zip(pair.clean, pair.corrupted, strict=True)) if a != b
        )


def column_map(
    columns: Sequence[Column], receiver: int, donor: int, n_receiver: int, n_donor: int, width: int
) -> list[int]:
    """For each position of the receiver, the donor's: within the same column, round and round.

    Positions in no column (those of continuations, or all where there are no columns) keep their
    distance from the beginning, as far as the donor reaches. n_receiver, n_donor: packed lengths.
    """
    found = [min(i, n_donor - 1) for i in range(n_receiver)] + [0] * (width - n_receiver)
    for column in columns:
        theirs = column.positions[donor]
        for i, position in enumerate(column.positions[receiver]):
            found[position] = theirs[i % len(theirs)]
    return found


def aligned(
    kept: Kept,
    places: Sequence[Place],
    columns: Sequence[Column],
    receivers: Sequence[int],
    donors: Sequence[int],
    lengths: Sequence[int],
    width: int,
) -> dict[Place, Tensor]:
    """The donors' values at the receivers' positions: `[receiver, pos, ...]` by place."""
    rows = torch.arange(len(receivers), device=kept.final.device)[:, None]
    index = torch.tensor(
        [
            column_map(columns, r, d, n, len(row.tokens), width)
            for r, d, n, row in zip(receivers, donors, lengths, kept.batch.rows, strict=True)
        ],
        device=kept.final.device,
    )
    return {place: kept.at(place)[rows, index] for place in places}


class Means:
    """Means over prompts, by place and column, and over all prompt tokens where there is no column."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._sums: dict[tuple[Place, int], Tensor] = {}
        self._counts: dict[tuple[Place, int], int] = {}

    def add(self, kept: Kept, places: Sequence[Place], pairs: Sequence[int]) -> None:
        for place in places:
            values = kept.at(place)
            for row, pair in enumerate(pairs):
                prompt = values[row, : kept.batch.rows[row].n_prompt].double()
                self._take(place, -1, prompt.sum(0), len(prompt))
                for number, column in enumerate(self._columns):
                    where = list(column.positions[pair])
                    self._take(place, number, prompt[where].sum(0), len(where))

    def values(self, place: Place, pairs: Sequence[int], width: int, like: Tensor) -> Tensor:
        """`[pair, pos, ...]`: each position's mean."""
        whole = self._mean(place, -1)
        found = whole.expand(len(pairs), width, *whole.shape).clone()
        for number, column in enumerate(self._columns):
            mean = self._mean(place, number)
            for row, pair in enumerate(pairs):
                found[row, list(column.positions[pair])] = mean
        return found.to(like)

    def _take(self, place: Place, column: int, total: Tensor, count: int) -> None:
        key = place, column
        self._sums[key] = self._sums[key] + total if key in self._sums else total
        self._counts[key] = self._counts.get(key, 0) + count

    def _mean(self, place: Place, column: int) -> Tensor:
        return self._sums[place, column] / self._counts[place, column]
