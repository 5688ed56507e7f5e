"""Multiply-adds of a patching grid: those that no way around it saves, and those of a full run per cell.

Counted are matrices and attention scores; norms and the like are left out. The whole runs that either
way starts from are counted apart.
"""

import dataclasses
from collections.abc import Sequence

from probes.benchmarks.patch_work import PatchWork
from probes.models.loading import Model
from probes.patching.engine.packing import pack
from probes.patching.pairs import EncodedPair
from probes.patching.parts import Cell


@dataclasses.dataclass(frozen=True)
class Costs:
    """Multiply-adds per token: of queries, keys and values; of the output projection; of the MLP.

    score: per token and key that it sees. head: the output projection of one head.
    """

    query: float
    key_value: float
    output: float
    mlp: float
    unembed: float
    score: float
    head: float

    @property
    def block(self) -> float:
        return self.query + self.key_value + self.output + self.mlp


def costs(model: Model) -> Costs:
    """Of a Llama, whose matrices are all known by their configuration."""
    config = model.hf.config.get_text_config()
    d_model, d_head = int(config.hidden_size), int(config.head_dim)
    n_heads, n_keys = int(config.num_attention_heads), int(config.num_key_value_heads)
    return Costs(
        query=d_model * n_heads * d_head,
        key_value=2 * d_model * n_keys * d_head,
        output=d_model * n_heads * d_head,
        mlp=3 * d_model * int(config.intermediate_size),
        unembed=d_model * int(config.vocab_size),
        score=2 * n_heads * d_head,
        head=d_model * d_head,
    )


def full_operations(work: PatchWork, n_cells: int) -> float:
    """A full run of every prompt with every continuation per cell, padded to one length, all logits."""
    each, n = costs(work.model), work.n_full
    per_row = work.model.n_layers * (n * each.block + each.score * n * (n + 1) / 2)
    return 2.0 * len(work.pairs) * n_cells * (per_row + n * each.unembed)


def whole_operations(work: PatchWork) -> float:
    """Both versions of every prompt, run whole once: what values come from, and what cells start from."""
    each, n_layers = costs(work.model), work.model.n_layers
    total = 0.0
    for pair in work.pairs:
        for prompt in (pair.clean, pair.corrupted):
            packed = pack("", prompt, (pair.defect, pair.safe), contrast=True)
            seen = sum(position + 1 for position in packed.positions)
            total += n_layers * (len(packed.tokens) * each.block + each.score * seen)
            total += len(packed.reads) * each.unembed
    return total


def needed_operations(work: PatchWork, cells: Sequence[Cell]) -> float:
    """What the cells of a grid of `resid_pre` by position, or of `z` by head at all positions, need.

    Blocks from the patched one up; tokens from the first that changes on, with what continuations
    share counted once; in the patched block what lies behind the patch; in the last block, keys and
    values, and the rest only where logits are read.
    """
    each = costs(work.model)
    return sum(
        _needed(work.model.n_layers, each, pair, cell) for pair in work.pairs for cell in cells
    )


def _needed(n_layers: int, each: Costs, pair: EncodedPair, cell: Cell) -> float:
    differs = [a != b for a, b in zip(pair.clean, pair.corrupted, strict=True)]
    first = differs.index(True)
    start = first if cell.column < 0 else cell.column
    if start < first or (cell.layer == 0 and cell.column >= 0 and not differs[start]):
        return 0.0
    packed = pack("", pair.corrupted, (pair.defect, pair.safe), contrast=True)
    n_reads, n_run = len(packed.reads), len(packed.tokens) - start
    seen_run = sum(position + 1 for position in packed.positions[start:])
    seen_reads = sum(packed.positions[read] + 1 for read in packed.reads)
    last = cell.layer == n_layers - 1
    behind, seen = (n_reads, seen_reads) if last else (n_run, seen_run)
    total = n_reads * each.unembed + behind * each.mlp
    if cell.head is not None:
        total += behind * each.head
    else:  # one token's queries, keys and values are new, and all that look at it attend anew
        total += each.query + each.key_value + behind * each.output + seen * each.score
    if not last:
        between = n_layers - cell.layer - 2
        total += between * (n_run * each.block + seen_run * each.score)
        total += n_run * each.key_value + seen_reads * each.score
        total += n_reads * (each.query + each.output + each.mlp)
    return total
