"""What competes: a way to compute activations, and the proof that it computed the same ones."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probes.activations.collect import collect
from probes.activations.record import record
from probes.benchmarks.workload import Workload
from probes.foundation.errors import StageError
from probes.models import forward
from probes.models.encoding import pad
from probes.models.hooks import recording
from probes.models.sites import residual_sites

# Per token, the length of the difference relative to the length of the vector. float32 leaves four
# digits to other orders of summation; the shorter types have that much less.
BOUND = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}

Read = Callable[[], Tensor]


@dataclasses.dataclass(frozen=True)
class Contender:
    """A way to do a job.

    run: does it, writing into an empty folder; this alone is timed. Returns how to read the result
        afterwards, `[site, row, d_model]`.
    gives: which of `expected` that result must be.
    lent: whether it is handed the batches of `collect`, so that what is left is not the batching.
    """

    name: str
    run: Callable[[Workload, Path], Read]
    gives: str
    lent: bool = False


def expected(work: Workload) -> dict[str, Tensor]:
    """The right results, from plain forward passes of one prompt at a time, without a pad.

    "all": every token of every prompt, `[site, token, d_model]`, on the CPU. "last": the last token
    of each prompt. "trunk": what leaves the trunk there. "hidden_states": as Hugging Face gives
    them, where that takes the place of the last block's output.
    """
    sites = residual_sites(work.model.n_layers)
    parts = []
    ends = []
    with torch.inference_mode():
        for ids in work.sequences:
            with recording(work.model.hf, sites) as seen:
                final = forward.trunk(work.model.hf, pad([ids], work.model.pad_id))
            parts.append(torch.stack([seen[site][0] for site in sites]).cpu())
            ends.append(final[0, -1].cpu())
    everything = torch.cat(parts, dim=1)
    last = everything[:, torch.tensor(work.lengths).cumsum(0) - 1]
    trunk = torch.stack(ends)[None]
    hidden_states = torch.cat([last[:-1], trunk])
    return {"all": everything, "last": last, "trunk": trunk, "hidden_states": hidden_states}


def run_trunk(work: Workload, grouping: list[list[int]]) -> Read:
    """The trunk-only forward pass over these batches; keeps one vector per prompt."""
    found: dict[int, Tensor] = {}
    hf = work.model.hf
    with torch.inference_mode():
        for members in grouping:
            batch = pad([work.sequences[i] for i in members], work.model.pad_id)
            ends = forward.trunk(hf, batch)[torch.arange(len(members)), batch.last]
            found |= zip(members, ends, strict=True)
    return lambda: torch.stack([found[i] for i in range(len(work))])[None].cpu()


def compare(contender: Contender, found: Tensor, right: Mapping[str, Tensor]) -> float:
    """The largest relative error of a token; raises `StageError` where it is no rounding error."""
    wanted = right[contender.gives]
    if found.shape != wanted.shape:
        raise StageError(
            f"{contender.name} gave activations of shape {tuple(found.shape)}, not "
            f"{tuple(wanted.shape)}: what it does is not the same job, so its time says nothing"
        )
    bound = BOUND[wanted.dtype]
    difference = (found.float() - wanted.float()).norm(dim=-1)
    tiny = torch.finfo(torch.float32).tiny
    errors = (difference / wanted.float().norm(dim=-1).clamp_min(tiny)).nan_to_num(torch.inf)
    worst = float(errors.max())
    if worst > bound:
        site, row = divmod(int(errors.argmax()), errors.shape[1])
        raise StageError(
            f"{contender.name} differs from plain forward passes by {worst:.2g} of the activation's "
            f"length at site {site}, row {row} (allowed {bound:g}): no time is reported for a wrong "
            "result"
        )
    return worst


MEMORY_LAST, MEMORY_ALL = "record, last token", "record, all tokens"
DISK_LAST, DISK_ALL = "collect, last token", "collect, all tokens"
STORE = "store"


def own() -> list[Contender]:
    """`record` to memory and `collect` to disk, each of the last token and of all tokens."""
    return [
        Contender(MEMORY_LAST, functools.partial(_to_memory, positions="last"), "last"),
        Contender(MEMORY_ALL, functools.partial(_to_memory, positions="all"), "all"),
        Contender(DISK_LAST, functools.partial(_to_disk, positions="last"), "last"),
        Contender(DISK_ALL, functools.partial(_to_disk, positions="all"), "all"),
    ]


def _to_memory(work: Workload, folder: Path, positions: str) -> Read:
    found = record(
        work.model, work.prompts, positions=positions, token_budget=work.budget, dtype=_dtype(work)
    )
    return functools.partial(_stack, found, work)


def _to_disk(work: Workload, folder: Path, positions: str) -> Read:
    found = collect(
        work.model,
        work.prompts,
        folder / STORE,
        positions=positions,
        token_budget=work.budget,
        dtype=_dtype(work),
    )
    return functools.partial(_stack, found, work)


def _stack(found: Any, work: Workload) -> Tensor:
    sites = residual_sites(work.model.n_layers)
    return torch.stack([torch.from_numpy(found.rows(site)) for site in sites])


def _dtype(work: Workload) -> str:
    return str(work.model.dtype).removeprefix("torch.")
