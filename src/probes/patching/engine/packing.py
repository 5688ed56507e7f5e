"""A prompt and all its continuations as one sequence, so that what they share is computed once for all.

The continuations stand one behind the other and do not see each other; each takes the positions that
follow the prompt. Tokens that all of them begin with stand once. The last token of a continuation is
not run, because nothing is read there.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from probes.foundation.shapes import Tokens


@dataclasses.dataclass(frozen=True)
class Target:
    """One token whose logits are read: `read` counts a row's reads, `branch` its continuations."""

    read: int
    token: int
    branch: int


@dataclasses.dataclass(frozen=True)
class Packed:
    """One prompt with its continuations.

    tokens: as run. positions: of each in its own sequence. branch: -1 in the prompt and where all
    continuations are still the same, else the number of the continuation. reads: indices whose
    logits are needed, ascending. targets: continuation tokens, with the read that predicts each.
    """

    name: str
    n_prompt: int
    tokens: tuple[int, ...]
    positions: tuple[int, ...]
    branch: tuple[int, ...]
    reads: tuple[int, ...]
    targets: tuple[Target, ...]

    @cached_property
    def table(self) -> Int[np.ndarray, "target 3"]:
        """The targets as numbers: read, token, branch."""
        rows = [(target.read, target.token, target.branch) for target in self.targets]
        return np.array(rows, dtype=np.int64).reshape(-1, 3)


def pack(
    name: str,
    prompt: Sequence[int],
    branches: Sequence[Sequence[int]],
    *,
    contrast: bool = False,
) -> Packed:
    """Lay out one prompt; without continuations only the logits after the prompt are read.

    contrast: the metric is a difference between continuations, in which the tokens that all begin
    with cancel exactly: they are run, and what predicts them is not read.
    """
    n_prompt = len(prompt)
    same = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*branches, strict=False))
    shared = [column[0] for column in same] if len(branches) > 1 else []
    tokens = [*prompt, *shared]
    positions, branch = list(range(len(tokens))), [-1] * len(tokens)
    reads: dict[int, int] = {}
    targets = []
    for number, ending in enumerate(branches):
        last = n_prompt - 1
        for i, token in enumerate(ending):
            if i >= len(shared) or not contrast:
                targets.append(Target(reads.setdefault(last, len(reads)), token, number))
            if i < len(shared):
                last += 1
            elif i < len(ending) - 1:
                last = len(tokens)
                tokens.append(token)
                positions.append(n_prompt + i)
                branch.append(number)
    return Packed(
        name, n_prompt, tuple(tokens), tuple(positions), tuple(branch),
        tuple(reads) or (n_prompt - 1,), tuple(targets),
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class PackedBatch:
    """Packed sequences side by side, padded on the right.

    lengths: tokens per row. visible: for each token, the tokens that it may look at; by the width of
    the attention window, None for all that came before it.
    """

    rows: tuple[Packed, ...]
    tokens: Tokens
    positions: Tokens
    lengths: Int[Tensor, "batch"]
    visible: dict[int | None, Bool[Tensor, "batch pos pos"]]


def make_batch(
    rows: Sequence[Packed], pad_id: int, windows: Sequence[int | None], device: torch.device
) -> PackedBatch:
    """Pad rows to one width; pads see themselves only, so that nothing is computed from nothing."""
    width = max(len(row.tokens) for row in rows)

    def padded(values: Sequence[Sequence[int]], fill: int) -> Tensor:
        return torch.tensor([[*v, *[fill] * (width - len(v))] for v in values], device=device)

    positions = padded([row.positions for row in rows], 0)
    branch = padded([row.branch for row in rows], -2)
    order = torch.arange(width, device=device)
    earlier = order[None, :, None] >= order[None, None, :]
    same = (branch[:, None, :] == -1) | (branch[:, None, :] == branch[:, :, None])
    real = (branch != -2)[:, None, :] & (branch != -2)[:, :, None]
    everything = (earlier & same & real) | (order[:, None] == order[None, :])[None]
    distance = positions[:, :, None] - positions[:, None, :]
    visible = {w: everything if w is None else everything & (distance < w) for w in set(windows)}
    return PackedBatch(
        tuple(rows),
        padded([row.tokens for row in rows], pad_id),
        positions,
        torch.tensor([len(row.tokens) for row in rows], device=device),
        visible,
    )
