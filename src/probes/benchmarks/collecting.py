"""`probes bench collect`: is collection as fast as the bare model, and faster than the others?"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from probes.benchmarks import forward, memory, reading
from probes.benchmarks.result import Benchmark, finished, repetitions, surroundings, temporary, told
from probes.benchmarks.workload import SHAPES, Workload, make_workload, write_checkpoint
from probes.foundation.errors import InputError, unknown
from probes.foundation.outputs import writes
from probes.models.loading import load

PARTS = ("forward", "reading", "memory")
TABLE = "collect.csv"


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much is measured; a smoke run shows that everything works and judges nothing.

    shape: of the random model, by device. longest: tokens of a prompt. few, many: prompts of the
    memory part.
    """

    shape: dict[str, str]
    n_prompts: dict[str, int]
    repeats: int
    shortest: int
    longest: int
    n_rows: int
    few: int
    many: int
    judged: bool


FULL = Scale(
    shape={"cpu": "30M", "cuda": "1B"},
    n_prompts={"cpu": 80, "cuda": 512},
    repeats=3,
    shortest=16,
    longest=512,
    n_rows=reading.N_ROWS,
    few=memory.FEW,
    many=memory.MANY,
    judged=True,
)
QUICK = Scale(
    shape={"cpu": "tiny", "cuda": "tiny"},
    n_prompts={"cpu": 12, "cuda": 12},
    repeats=1,
    shortest=3,
    longest=48,
    n_rows=20_000,
    few=50,
    many=200,
    judged=False,
)


@writes("out")
def bench_collect(
    out: Path | str,
    *,
    parts: Iterable[str] = PARTS,
    model: Path | str | None = None,
    device: str = "cpu",
    n_prompts: int | None = None,
    token_budget: int = 8192,
    repeats: int | None = None,
    quick: bool = False,
    seed: int = 0,
) -> Benchmark:
    """Measure collection against its limits and its peers, and write the table to `out`.

    parts: of "forward" (speed of computing and storing), "reading" (a layer from a store), "memory"
        (peak of many prompts against few). model: an own checkpoint instead of the random one (30M
        parameters; on an accelerator 1.2B in bfloat16). n_prompts, token_budget, repeats: of the
        forward part, token_budget being padded tokens per pass for all contenders. quick: a smoke
        run of seconds on a tiny model, which judges nothing.

    Writes `collect.csv` and its provenance. Temporary files lie under `out` and are removed. Raises
    `InputError` for an unknown part or too small a disk, `StageError` where a contender computes
    something else than the model does.
    """
    chosen = list(dict.fromkeys(parts))
    for part in chosen:
        if part not in PARTS:
            raise unknown("part of the benchmark", part, PARTS)
    if not chosen:
        raise InputError(f"no part of the benchmark is chosen; parts are {', '.join(PARTS)}")
    scale = QUICK if quick else FULL
    kind = torch.device(device).type
    repeats = repetitions(repeats, scale.repeats)
    out = Path(out)
    facts: dict[str, Any] = _facts(device, scale, chosen)
    rows: list[dict[str, Any]] = []
    with temporary(out) as place:
        if "reading" in chosen:
            reading.check_free(place, reading.bytes_needed(scale.n_rows))
        if "forward" in chosen:
            shape = SHAPES[scale.shape.get(kind, scale.shape["cuda"])]
            source = model or write_checkpoint(place / "model", shape, seed)
            dtype = torch.bfloat16 if kind == "cuda" else torch.float32
            loaded = load(source, device=device, dtype=dtype, label=None if model else "random")
            work = make_workload(
                loaded,
                scale.n_prompts.get(kind, scale.n_prompts["cuda"])
                if n_prompts is None
                else n_prompts,
                token_budget,
                seed,
                scale.shortest,
                scale.longest,
            )
            facts |= _describe(work, repeats)
            rows += forward.measure(work, repeats, place, judged=scale.judged)
        if "reading" in chosen:
            rows += reading.measure(scale.n_rows, repeats, place, judged=scale.judged, seed=seed)
        if "memory" in chosen:
            tiny = write_checkpoint(place / "tiny", SHAPES["tiny"], seed)
            rows += memory.measure(tiny, scale.few, scale.many, place, judged=scale.judged)
    return finished(out / TABLE, rows, facts, seed)


def _facts(device: str, scale: Scale, parts: list[str]) -> dict[str, Any]:
    found = surroundings(device)
    if "forward" in parts:
        found["own time includes"] = "tokenising, digests, waiting for the disk; peers' does not"
    if "reading" in parts:
        found["reads are"] = "from the page cache, of the store and of the plain file"
    if not scale.judged:
        found["smoke run"] = "a tiny model and few prompts: these speeds say nothing"
    return found


def _describe(work: Workload, repeats: int) -> dict[str, Any]:
    """What was computed on, so that the speeds can be read."""
    model = work.model.facts()
    lengths = ", ".join(f"{share} {n}" for share, n in work.quantiles().items())
    padding = {
        "as given": work.padded_tokens(work.given_batches),
        "sorted": work.padded_tokens(work.sorted_batches),
    }
    shares = ", ".join(f"{name} {1 - work.n_tokens / n:.1%}" for name, n in padding.items())
    return {
        "model": f"{model['architecture']}, {model['parameters']:,} parameters, "
        f"{model['layers']} layers of {model['d_model']}, {model['dtype']} on {model['device']}",
        "prompts": f"{len(work)} of {work.n_tokens:,} tokens together",
        "prompt lengths": lengths,
        "batches": f"of {work.budget} tokens at most; padding in them: {shares}",
        "repetitions": told(repeats),
    }
