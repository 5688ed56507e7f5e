"""`probes bench accelerator`: one table of what a GPU is for, in under ten minutes.

On a CPU it runs in a small size, so that the tests keep it ready for the day when there is a GPU.
"""

import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from probes.benchmarks.collecting import bench_collect
from probes.benchmarks.patching import bench_patch
from probes.benchmarks.probing import bench_probe
from probes.benchmarks.result import Benchmark, finished, row, surroundings, temporary
from probes.benchmarks.workload import SHAPES, write_checkpoint
from probes.foundation.errors import InputError
from probes.foundation.outputs import writes
from probes.foundation.progress import progress
from probes.organisms.bases import Lora
from probes.organisms.lessons import LessonConfig
from probes.organisms.organism import OrganismRecipe, install
from probes.organisms.recipes import Training

TABLE = "accelerator.csv"
N_PROMPTS = 256


@writes("out")
def bench_accelerator(
    out: Path | str, *, device: str = "cuda", quick: bool = False, seed: int = 0
) -> Benchmark:
    """Collect, fit, patch and teach on a device, each against its peers, and write one table to `out`.

    Collection is of random Llamas of 135M and 1.2B parameters in bfloat16, against the bare trunk,
    Hugging Face and nnsight; probe fits are on the device and on the CPU; patching grids against
    transformer_lens.patching, a plain loop of forward passes; organisms by LoRA on the smaller model, by the minute.
    quick: a smoke run on tiny models, on any device.
    """
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise InputError("no CUDA device is to be seen here: give --device cpu with --quick for a smoke run")  # fmt: skip
    sizes = ("tiny",) if quick else ("135M", "1B")
    tables: list[pd.DataFrame] = []
    with temporary(out) as place:
        made = {size: write_checkpoint(place / size, SHAPES[size], seed) for size in sizes}

        def collected(size: str) -> pd.DataFrame:
            found = bench_collect(
                place / f"collect-{size}", parts=("forward",), model=made[size], device=device,
                n_prompts=None if quick else N_PROMPTS, repeats=1, quick=quick, seed=seed,
            ).table  # fmt: skip
            return found.assign(job=f"{size}: " + found["job"])

        jobs: dict[str, Any] = {
            **{f"collect, {size}": lambda size=size: collected(size) for size in sizes},
            "fit probes": lambda: bench_probe(
                place / "fits", device=device, repeats=1, quick=quick, seed=seed
            ).table,
            "patch": lambda: bench_patch(
                place / "patch", models=("tiny" if quick else "30M",), device=device, repeats=1, quick=quick, seed=seed,
            ).table,
            "organisms by LoRA": lambda: pd.DataFrame([_taught(made[sizes[0]], place, quick, seed)]),
        }  # fmt: skip
        for name in progress(list(jobs), "accelerator"):
            tables.append(jobs[name]())
    rows: list[Any] = pd.concat(tables).to_dict("records")
    facts = surroundings(device) | {"repetitions": "1"}
    if quick:
        facts["smoke run"] = "tiny models: these speeds say nothing"
    return finished(Path(out) / TABLE, rows, facts, seed)


def _taught(base: Path, place: Path, quick: bool, seed: int) -> dict[str, Any]:
    """Organisms a minute: one adapter, taught and measured, on the device that training finds."""
    small = LessonConfig(pretrain=1, train=40, safety=8, test=8, unseen=8, near=2, seed=seed)
    recipe = OrganismRecipe(
        base=str(base), lora=Lora(merged=False), seed=seed, lessons=small if quick else LessonConfig(),
        training=Training(steps=2 if quick else 200, batch_size=16, learning_rate=1e-3, optimiser="adamw"),
    )  # fmt: skip
    began = time.perf_counter()
    install(recipe, place / "organisms")
    return row("organisms by LoRA", "probes", "taught and measured", 60 / (time.perf_counter() - began), "a minute")  # fmt: skip
