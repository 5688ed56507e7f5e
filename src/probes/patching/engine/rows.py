"""Rows of a patched forward pass: one cell in one prompt, from the first position that changes."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from probes.patching.engine.taps import Taps
from probes.patching.engine.trunk import Kept, Place


@dataclasses.dataclass(frozen=True)
class Change:
    """Positions of one prompt at one place that get other values; head: None for all heads."""

    place: Place
    head: int | None
    positions: np.ndarray


@dataclasses.dataclass(frozen=True)
class Row:
    """One cell in one prompt: which result it is, what changes, and where it has to start."""

    result: tuple[int, int]
    pair: int
    changes: tuple[Change, ...]
    layer: int
    start: int
    length: int


def batches(rows: Sequence[Row], budget: int) -> list[list[Row]]:
    """Rows that enter at one layer, grouped by where they start, up to `budget` tokens with padding."""
    found: list[list[Row]] = []
    start = longest = 0
    for row in sorted(rows, key=lambda r: (r.layer, r.start, -r.length, r.result)):
        if found and found[-1][0].layer == row.layer:
            wider = max(longest, row.length - row.start)
            # A row that starts later than the first also drags the masked keys in between along.
            if (len(found[-1]) + 1) * (wider + (row.start - start) // 2) <= budget:
                longest = wider
                found[-1].append(row)
                continue
        found.append([row])
        start, longest = row.start, row.length - row.start
    return found


@dataclasses.dataclass(frozen=True)
class Filled:
    """A batch of rows as a model takes it; see `Trunk.resume`."""

    rows: Tensor
    starts: Tensor
    index: Tensor
    entry: Tensor
    edits: dict[Place, Callable[[Tensor], Tensor]]
    taps: Taps


def fill(kept: Kept, values: Mapping[Place, Tensor], batch: Sequence[Row]) -> Filled:
    """Gather what these rows start from and what is put into them."""
    device = kept.final.device
    rows = torch.tensor([row.pair for row in batch], device=device)
    starts = torch.tensor([row.start for row in batch], device=device)
    lengths = torch.tensor([row.length for row in batch], device=device)
    n_run = max(row.length - row.start for row in batch)
    index = torch.minimum(
        starts[:, None] + torch.arange(n_run, device=device), lengths[:, None] - 1
    )
    layer = batch[0].layer
    entry = kept.streams[layer][rows[:, None], index]
    edits: dict[Place, Callable[[Tensor], Tensor]] = {}
    taps = Taps()
    for place, puts in _collect(batch, device).items():
        put = _putter(puts, values[place])
        if place == ("stream", layer):
            entry = put(entry)
        elif place[0] == "q":
            taps.queries[place[1]] = _turned(put)
        elif place[0] == "pattern":
            prefix = int(starts.max())
            taps.patterns[place[1]] = _turned(
                _pattern_putter(puts, values[place], prefix, starts, index, lengths)
            )
        else:
            edits[place] = _by_head(put, values[place]) if place[0] == "z" else put
    return Filled(rows, starts, index, entry, edits, taps)


@dataclasses.dataclass(frozen=True)
class _Puts:
    """Index tensors: row of the batch, position in what is run, pair, packed position, head or None."""

    row: Tensor
    at: Tensor
    pair: Tensor
    position: Tensor
    head: Tensor | None


def _collect(batch: Sequence[Row], device: torch.device) -> dict[Place, list[_Puts]]:
    found: dict[tuple[Place, bool], list[np.ndarray]] = {}
    for r, row in enumerate(batch):
        for change in row.changes:
            n = len(change.positions)
            head = -1 if change.head is None else change.head
            block = np.empty((5, n), dtype=np.int64)
            block[0], block[2], block[4] = r, row.pair, head
            block[1], block[3] = change.positions - row.start, change.positions
            found.setdefault((change.place, change.head is None), []).append(block)
    puts: dict[Place, list[_Puts]] = {}
    for (place, whole), blocks in found.items():
        every = torch.from_numpy(np.concatenate(blocks, 1)).to(device)
        row, at, pair, position, head = every
        puts.setdefault(place, []).append(_Puts(row, at, pair, position, None if whole else head))
    return puts


def _putter(puts: Sequence[_Puts], source: Tensor) -> Callable[[Tensor], Tensor]:
    """Put values into `[batch, pos, width]` or `[batch, pos, head, d_head]`; the input is not written to."""

    def put(activation: Tensor) -> Tensor:
        changed = activation.clone()
        for p in puts:
            if p.head is None:
                changed[p.row, p.at] = source[p.pair, p.position].to(changed)
            else:
                changed[p.row, p.at, p.head] = source[p.pair, p.position, p.head].to(changed)
        return changed

    return put


def _pattern_putter(
    puts: Sequence[_Puts],
    source: Tensor,
    prefix: int,
    starts: Tensor,
    index: Tensor,
    lengths: Tensor,
) -> Callable[[Tensor], Tensor]:
    """Put rows of attention weights in place: `[batch, query, head, key]`, keys as `resume` has them."""
    n_run = index.shape[1]
    before = torch.arange(prefix, device=index.device)
    run = torch.arange(n_run, device=index.device)

    def put(pattern: Tensor) -> Tensor:
        changed = pattern.clone()
        for p in puts:
            whole = source[p.pair, p.position]  # [put, head, key]
            past = whole[..., :prefix] * (before < starts[p.row, None])[:, None]
            new = whole.gather(2, index[p.row][:, None].expand(-1, whole.shape[1], -1))
            new = new * ((starts[:, None] + run) < lengths[:, None])[p.row][:, None]
            values = torch.cat([past, new], 2).to(changed)
            if p.head is None:
                changed[p.row, p.at] = values
            else:
                changed[p.row, p.at, p.head] = values[torch.arange(len(p.row)), p.head]
        return changed

    return put


def _by_head(put: Callable[[Tensor], Tensor], source: Tensor) -> Callable[[Tensor], Tensor]:
    """For a site that the model has flat, one head behind another."""
    heads = source.shape[2:]

    def flat(activation: Tensor) -> Tensor:
        parted = activation.reshape(*activation.shape[:2], *heads)
        return put(parted).reshape(activation.shape)

    return flat


def _turned(put: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """For a tensor that has its heads before its positions."""
    return lambda found: put(found.transpose(1, 2)).transpose(1, 2)
