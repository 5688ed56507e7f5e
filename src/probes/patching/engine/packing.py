"""A prompt and all its continuations as one sequence, so that the prompt is computed once for all.

The continuations stand one behind the other and do not see each other; each takes the positions that
follow the prompt. The last token of a continuation is not run, because nothing is read there.
"""

import dataclasses
from collections.abc import Sequence

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

    tokens: as run. positions: of each in its own sequence. branch: -1 in the prompt, else the number
    of the continuation. reads: indices whose logits are needed, the prompt's last token first.
    targets: every continuation token, with the read that predicts it.
    """

    name: str
    n_prompt: int
    tokens: tuple[int, ...]
    positions: tuple[int, ...]
    branch: tuple[int, ...]
    reads: tuple[int, ...]
    targets: tuple[Target, ...]


def pack(name: str, prompt: Sequence[int], branches: Sequence[Sequence[int]]) -> Packed:
    """Lay out one prompt; without continuations only the logits after the prompt are read."""
    n_prompt = len(prompt)
    tokens, positions, branch = list(prompt), list(range(n_prompt)), [-1] * n_prompt
    reads, targets = [n_prompt - 1], []
    for number, ending in enumerate(branches):
        for i, token in enumerate(ending):
            if i:
                reads.append(len(tokens) - 1)
            targets.append(Target(len(reads) - 1 if i else 0, token, number))
            if i < len(ending) - 1:
                tokens.append(token)
                positions.append(n_prompt + i)
                branch.append(number)
    return Packed(
        name, n_prompt, tuple(tokens), tuple(positions), tuple(branch), tuple(reads), tuple(targets)
    )


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
