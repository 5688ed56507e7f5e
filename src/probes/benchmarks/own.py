"""The package's own ways to get activations, from texts: tokenising is part of their time."""

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probes.activations.collect import collect
from probes.activations.record import record
from probes.benchmarks.contenders import Contender, Read
from probes.benchmarks.workload import Workload
from probes.models.sites import residual_sites

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
