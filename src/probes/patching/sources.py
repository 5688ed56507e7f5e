"""What is put in place of an activation: another run's, the mean over prompts, zero, or a stranger's."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from probes.foundation.errors import InputError, unknown
from probes.foundation.seeds import stream
from probes.models.sinks import SinkRule
from probes.patching.engine.trunk import Kept, Place
from probes.patching.pairs import EncodedPair
from probes.patching.spans import Column

VALUES = ("paired", "mean", "zero", "resampled", "placebo", "projected")
DIRECTIONS = ("denoise", "noise")


@dataclasses.dataclass(frozen=True)
class Along:
    """A direction at one place and column: what is taken over of the other run is its part along it.

    direction: `d_model` numbers; its length and sign do not matter.
    """

    place: Place
    column: int
    direction: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which run is patched and what is put into it.

    direction: "denoise" runs the corrupted prompt (without the trigger) and patches the clean one's
    values in; "noise" runs the clean prompt and patches the corrupted one's.
    values: "paired", the same positions of the other version of the prompt; "projected", what is there
    plus the part of the difference to it that lies along the directions of `along`; "mean", over the other
    versions of all pairs, by column; "zero"; "resampled", another pair's other version, at the same
    column; "placebo", another pair's version of the same kind as the one that is run, which carries
    no news of the trigger: what it moves is the damage that any foreign value does.
    """

    direction: str = "denoise"
    values: str = "paired"
    seed: int = 0
    along: tuple[Along, ...] = ()

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS:
            raise unknown("direction", self.direction, DIRECTIONS)
        if self.values not in VALUES:
            raise unknown("kind of values", self.values, VALUES)
        if (self.values == "projected") != bool(self.along):
            raise InputError(
                f"values={self.values!r} with {len(self.along)} directions: projected values need "
                "`along`, others take none"
            )

    @property
    def facts(self) -> dict[str, Any]:
        """The plan as JSON data."""
        found = dataclasses.asdict(self)
        return found if self.along else {k: v for k, v in found.items() if k != "along"}

    @property
    def own(self) -> bool:
        """Whether values come from the other version of the very prompt."""
        return self.values in ("paired", "projected")

    @property
    def runs_clean(self) -> bool:
        return self.direction == "noise"

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
        if not self.own:
            return 0
        shortest = min(len(pair.clean), len(pair.corrupted))
        return next((i for i in range(shortest) if pair.clean[i] != pair.corrupted[i]), shortest)

    def everywhere(self, pair: EncodedPair, n_tokens: int) -> Int[np.ndarray, "pos"]:
        """Positions of all slots in the run of `n_tokens` that is patched."""
        if pair.matched is None:
            return np.arange(n_tokens)
        n_slots = len(pair.matched) + n_tokens - len(self.run(pair))
        return np.array(pair.where(range(n_slots), self.runs_clean))

    def counterparts(self, pair: EncodedPair, n_tokens: int) -> list[int]:
        """For each token of the run that is patched, its position in the other; 0 where it has none."""
        if pair.matched is None:
            return list(range(n_tokens))
        shift = len(self.other(pair)) - len(self.run(pair))
        found = [i + shift if i >= len(self.run(pair)) else 0 for i in range(n_tokens)]
        for clean, corrupted in pair.matched:
            here, there = (clean, corrupted) if self.runs_clean else (corrupted, clean)
            found[here] = there
        return found


def columns_in(
    columns: Sequence[Column], pairs: Sequence[EncodedPair], clean: bool
) -> list[Column]:
    """The columns as positions in one version of each prompt, instead of slots."""
    return [
        Column(c.label, tuple(p.where(at, clean) for p, at in zip(pairs, c.positions, strict=True)))
        for c in columns
    ]


def projected(
    mine: Tensor, theirs: Tensor, place: Place, plan: Plan, columns: Sequence[Column],
    members: Sequence[int],
) -> Tensor:  # fmt: skip
    """`mine`, moved towards `theirs` along the plan's directions at this place: `[pair, pos, d_model]`."""
    found = mine.clone()
    for along in plan.along:
        if along.place != place:
            continue
        direction = torch.tensor(along.direction, device=mine.device, dtype=torch.float64)
        if direction.shape != mine.shape[2:]:
            raise InputError(
                f"a direction at {place} has {len(along.direction)} numbers; the activation there has "
                f"shape {tuple(mine.shape[2:])}"
            )
        unit = direction / direction.norm()
        for row, pair in enumerate(members):
            where = list(columns[along.column].positions[pair])
            apart = theirs[row, where].double() - mine[row, where].double()
            found[row, where] += ((apart @ unit)[:, None] * unit).to(found)
    return found


def column_map(
    columns: Sequence[Column],
    donated: Sequence[Column],
    receiver: int,
    donor: int,
    n_receiver: int,
    n_donor: int,
    width: int,
) -> list[int]:
    """For each position of the receiver, the donor's: within the same column, round and round.

    columns, donated: as positions in the version that is run, and in the one that values come from.

    Positions in no column (those of continuations, or all where there are no columns) keep their
    distance from the beginning, as far as the donor reaches. n_receiver, n_donor: packed lengths.
    """
    found = [min(i, n_donor - 1) for i in range(n_receiver)] + [0] * (width - n_receiver)
    for column, given in zip(columns, donated, strict=True):
        theirs = given.positions[donor]
        for i, position in enumerate(column.positions[receiver]):
            found[position] = theirs[i % len(theirs)]
    return found


def aligned(
    kept: Kept,
    places: Sequence[Place],
    columns: Sequence[Column],
    donated: Sequence[Column],
    receivers: Sequence[int],
    donors: Sequence[int],
    lengths: Sequence[int],
    width: int,
) -> dict[Place, Tensor]:
    """The donors' values at the receivers' positions: `[receiver, pos, ...]` by place."""
    rows = torch.arange(len(receivers), device=kept.final.device)[:, None]
    index = torch.tensor(
        [
            column_map(columns, donated, r, d, n, len(row.tokens), width)
            for r, d, n, row in zip(receivers, donors, lengths, kept.batch.rows, strict=True)
        ],
        device=kept.final.device,
    )
    return {place: kept.at(place)[rows, index] for place in places}


class Means:
    """Means over prompts, by place and column, and over all prompt tokens where there is no column.

    columns, donated: as positions in the version that is run, and in the one that values come from.
    sinks: attention sinks have means of their own, which go where the run has a sink: beside their
    norm all other tokens would be nothing.
    """

    def __init__(
        self, columns: Sequence[Column], donated: Sequence[Column], sinks: SinkRule | None = None
    ) -> None:
        self._columns = columns
        self._donated = donated
        self._rule = sinks
        self._sums: dict[tuple[Place, int, bool], Tensor] = {}
        self._counts: dict[tuple[Place, int, bool], int] = {}

    def add(self, kept: Kept, places: Sequence[Place], pairs: Sequence[int]) -> None:
        sinks = kept.sinks(self._rule).tolist()
        for place in places:
            values = kept.at(place)
            for row, pair in enumerate(pairs):
                whole = range(kept.batch.rows[row].n_prompt)
                self._take(place, -1, values[row], whole, sinks[row])
                for number, column in enumerate(self._donated):
                    self._take(place, number, values[row], column.positions[pair], sinks[row])

    def values(self, place: Place, pairs: Sequence[int], width: int, kept: Kept) -> Tensor:
        """`[pair, pos, ...]`: each position's mean. kept: the run that they are put into."""
        whole = self._mean(place, -1, False)
        found = whole.expand(len(pairs), width, *whole.shape).clone()
        sinks = kept.sinks(self._rule).tolist()
        for row, pair in enumerate(pairs):
            for position in (i for i in range(width) if sinks[row][i]):
                found[row, position] = self._mean(place, -1, True)
            for number, column in enumerate(self._columns):
                for sink in (False, True):
                    where = [i for i in column.positions[pair] if sinks[row][i] is sink]
                    if where:
                        found[row, where] = self._mean(place, number, sink)
        return found.to(kept.final)

    def _take(
        self, place: Place, column: int, values: Tensor, where: Sequence[int], sinks: list[bool]
    ) -> None:
        for sink in (False, True):
            chosen = [i for i in where if sinks[i] is sink]
            if not chosen:
                continue
            key = place, column, sink
            total = values[chosen].double().sum(0)
            self._sums[key] = self._sums[key] + total if key in self._sums else total
            self._counts[key] = self._counts.get(key, 0) + len(chosen)

    def _mean(self, place: Place, column: int, sink: bool) -> Tensor:
        """Of the column, else of all tokens of this kind, else of the column's others."""
        for key in ((place, column, sink), (place, -1, sink), (place, column, not sink)):
            if key in self._sums:
                return self._sums[key] / self._counts[key]
        return self._sums[place, -1, not sink] / self._counts[place, -1, not sink]
