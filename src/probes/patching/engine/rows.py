"""Rows of a patched forward pass: one cell in one prompt, from the first position that changes."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from probes.patching.engine.taps import Act, Taps, by_head, turned
from probes.patching.engine.trunk import Kept, Place, Run, behind_keys

# Tokens of padding that a batch may hold, as a part of all, once it has a quarter of its size.
WASTE = 0.1


@dataclasses.dataclass(frozen=True)
class Change:
    """Positions of one prompt at one place that get other values; head: None for all heads."""

    place: Place
    head: int | None
    positions: np.ndarray


@dataclasses.dataclass(frozen=True)
class Row:
    """One cell in one prompt: which result it is, what changes, and what has to be run for it.

    layer: the first block that is run. attended: its attention is what it was, so only what follows
    it is run. lead: positions that are run and not read, ascending. tail: from there to `length`
    everything is run, all reads among it.
    """

    result: tuple[int, int]
    pair: int
    changes: tuple[Change, ...]
    layer: int
    lead: np.ndarray
    tail: int
    length: int
    attended: bool = False

    @property
    def n_tail(self) -> int:
        return self.length - self.tail


def batches(rows: Sequence[Row], budget: int) -> list[list[Row]]:
    """Rows that enter alike, of like length, up to `budget` tokens with padding."""
    found: list[list[Row]] = []
    lead = tail = n_real = 0
    for row in sorted(rows, key=lambda r: (r.layer, r.attended, -r.n_tail, -len(r.lead), r.result)):
        n_own = len(row.lead) + row.n_tail
        if found and (found[-1][0].layer, found[-1][0].attended) == (row.layer, row.attended):
            wider = max(lead, len(row.lead)), max(tail, row.n_tail)
            n_padded = (len(found[-1]) + 1) * sum(wider)
            wasteful = n_padded > budget / 4 and n_padded - n_real - n_own > n_padded * WASTE
            if n_padded <= budget and not wasteful:
                lead, tail = wider
                n_real += n_own
                found[-1].append(row)
                continue
        found.append([row])
        lead, tail, n_real = len(row.lead), row.n_tail, n_own
    return found


@dataclasses.dataclass(frozen=True)
class Filled:
    """A batch of rows as a model takes it; see `Trunk.resume`."""

    run: Run
    entry: Tensor
    edits: dict[Place, Act]
    taps: Taps


def fill(kept: Kept, values: Mapping[Place, Tensor], batch: Sequence[Row]) -> Filled:
    """Gather what these rows start from and what is put into them."""
    device = kept.final.device
    run = _run(batch, device)
    layer, last = batch[0].layer, len(kept.caches) - 1
    entry = kept.streams[layer][run.rows[:, None], run.index]
    edits: dict[Place, Act] = {}
    taps = Taps()
    for place, puts in _collect(batch, run.n_lead, last, device).items():
        put = _putter(puts, values[place])
        if place == ("stream", layer):
            entry = put(entry)
        elif place[0] == "q":
            taps.queries[place[1]] = turned(put)
        elif place[0] == "pattern":
            taps.patterns[place[1]] = turned(_pattern_putter(puts, values[place], run))
        else:
            edits[place] = by_head(put, values[place].shape[2]) if place[0] == "z" else put
    return Filled(run, entry, edits, taps)


def _run(batch: Sequence[Row], device: torch.device) -> Run:
    n_lead = max(len(row.lead) for row in batch)
    n_tail = max(row.n_tail for row in batch)
    index = np.empty((len(batch), n_lead + n_tail), dtype=np.int64)
    real = np.zeros(index.shape, dtype=bool)
    unrun = np.zeros((len(batch), max(row.tail for row in batch)), dtype=bool)
    for r, row in enumerate(batch):
        n = len(row.lead)
        index[r, :n], index[r, n:n_lead] = row.lead, row.tail
        index[r, n_lead:] = row.length - 1
        index[r, n_lead : n_lead + row.n_tail] = np.arange(row.tail, row.length)
        real[r, :n] = real[r, n_lead : n_lead + row.n_tail] = True
        unrun[r, : row.tail] = True
        unrun[r, row.lead] = False
    n_past = int(np.flatnonzero(unrun.any(axis=0)).max(initial=-1)) + 1
    return Run(
        rows=torch.tensor([row.pair for row in batch], device=device),
        index=torch.from_numpy(index).to(device),
        real=torch.from_numpy(real).to(device),
        unrun=torch.from_numpy(unrun[:, :n_past]).to(device),
        n_lead=n_lead,
        attended=batch[0].attended,
    )


@dataclasses.dataclass(frozen=True)
class _Puts:
    """Index tensors: row of the batch, position in what is run, pair, packed position, head or None."""

    row: Tensor
    at: Tensor
    pair: Tensor
    position: Tensor
    head: Tensor | None


def _collect(
    batch: Sequence[Row], n_lead: int, last: int, device: torch.device
) -> dict[Place, list[_Puts]]:
    found: dict[tuple[Place, bool], list[np.ndarray]] = {}
    for r, row in enumerate(batch):
        for change in row.changes:
            n = len(change.positions)
            head = -1 if change.head is None else change.head
            block = np.empty((5, n), dtype=np.int64)
            block[0], block[2], block[3], block[4] = r, row.pair, change.positions, head
            block[1] = n_lead + change.positions - row.tail
            before = change.positions < row.tail
            block[1, before] = np.searchsorted(row.lead, change.positions[before])
            if behind_keys(change.place, last):
                block[1] -= n_lead
            found.setdefault((change.place, change.head is None), []).append(block)
    puts: dict[Place, list[_Puts]] = {}
    for (place, whole), blocks in found.items():
        every = torch.from_numpy(np.concatenate(blocks, 1)).to(device)
        row, at, pair, position, head = every
        puts.setdefault(place, []).append(_Puts(row, at, pair, position, None if whole else head))
    return puts


def _putter(puts: Sequence[_Puts], source: Tensor) -> Act:
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


def _pattern_putter(puts: Sequence[_Puts], source: Tensor, run: Run) -> Act:
    """Put rows of attention weights in place: `[batch, query, head, key]`, keys as `resume` has them."""

    def put(pattern: Tensor) -> Tensor:
        changed = pattern.clone()
        for p in puts:
            whole = source[p.pair, p.position]  # [put, head, key]
            past = whole[..., : run.unrun.shape[1]] * run.unrun[p.row, None]
            new = whole.gather(2, run.index[p.row][:, None].expand(-1, whole.shape[1], -1))
            values = torch.cat([past, new * run.real[p.row][:, None]], 2).to(changed)
            if p.head is None:
                changed[p.row, p.at] = values
            else:
                changed[p.row, p.at, p.head] = values[torch.arange(len(p.row)), p.head]
        return changed

    return put
