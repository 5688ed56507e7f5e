"""`probes bench growth`: how time and memory grow with the number of prompts, and with the model."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from probes.activations.collect import collect
from probes.auditing.cues import battery
from probes.auditing.frames import around
from probes.auditing.scoring import log_probs, tokens_of
from probes.benchmarks import patching
from probes.benchmarks.memory import own_peak
from probes.benchmarks.probing import Workload, draw
from probes.benchmarks.result import Asked, Benchmark, finished, row, surroundings, temporary
from probes.benchmarks.workload import SHAPES, make_workload, write_checkpoint
from probes.detection.design import make_design
from probes.detection.judgement import judge
from probes.detection.worlds import World, plant
from probes.foundation.outputs import writes
from probes.foundation.progress import progress
from probes.models.loading import Model, load
from probes.probing.batched.logistic import fit_logistic

TABLE = "growth.csv"
TIMES = (1, 3, 10)
SIZES = ("0.4M", "30M")
ASKED = Asked("<=", 1.1)
FORGET_PEAK = Path("/proc/self/clear_refs")
"""Where Linux forgets the peak of a process; elsewhere a peak is that of all that was done so far."""

Job = Callable[[], object]


@writes("out")
def bench_growth(out: Path | str, *, quick: bool = False, seed: int = 0) -> Benchmark:
    """Collect, fit, judge, patch and sweep with 1, 3 and 10 times the prompts, and write the table to `out`.

    Times are processor seconds, with models and prompts made before. The exponent of growth is the slope
    of log time against log prompts: 1 is in proportion, less has a part that does not grow. What
    grows with the model is measured on two sizes. quick: a smoke run on a tiny one.
    """
    rows: list[dict[str, Any]] = []
    with temporary(out) as place:
        cases = [case for size in (("tiny",) if quick else SIZES) for case in _with_model(size, quick, place, seed)]  # fmt: skip
        cases += _without_model(quick, seed)
        for job, size, amount, make in progress(cases, "growth"):
            rows += _grown(job, size, amount, make, judged=not quick)
    facts = surroundings() | {
        "processor seconds": "of one run each; models, prompts and activations are made before",
        "peak memory": "of the process, models and data included",
    }
    if quick:
        facts["smoke run"] = "a tiny model and few prompts: these exponents say nothing"
    return finished(Path(out) / TABLE, rows, facts, seed)


def _grown(
    job: str, size: str, amount: str, prepare: Callable[[int], Job], *, judged: bool = True
) -> Iterator[dict[str, Any]]:
    seconds = []
    for times in TIMES:
        run = prepare(times)
        if FORGET_PEAK.exists():
            FORGET_PEAK.write_text("5")
        began = time.process_time()
        run()
        seconds.append(time.process_time() - began)
        name = f"{size}, {times}x"
        yield row(job, name, f"processor time, {times} x {amount}", seconds[-1], "s")
        yield row(job, name, "peak memory", float(own_peak()), "bytes")
    slope = exponent(TIMES, seconds)
    yield row(job, size, "exponent of growth", slope, "", ratio=slope, asked=ASKED, judged=judged)


def exponent(amounts: tuple[int, ...], seconds: list[float]) -> float:
    """The slope of log time against log amount."""
    return float(np.polyfit(np.log(amounts), np.log(seconds), 1)[0])


Case = tuple[str, str, str, Callable[[int], Job]]


def _with_model(size: str, quick: bool, place: Path, seed: int) -> list[Case]:
    model = load(write_checkpoint(place / size, SHAPES[size], seed), label="random")
    n_prompts, n_pairs, n_asked = (4, 1, 1) if quick else (40, 1, 4)
    longest = 24 if quick else 128
    work = make_workload(model, 10 * n_prompts, 2048, seed, 8, longest)
    tokens = (12, 3) if quick else (48, 6)
    collect(model, work.prompts[:2], place / f"warm-{size}")

    def collecting(times: int) -> Job:
        folder = Path(tempfile.mkdtemp(dir=place)) / "store"
        asked = work.prompts[: times * n_prompts]
        return lambda: collect(model, asked, folder, token_budget=2048)

    def patched(times: int) -> Job:
        pairs = patching.random_work(model, times * n_pairs, *tokens, seed)
        return lambda: patching.ours(pairs, patching.GRIDS[0])

    return [
        ("collect, last token", size, f"{n_prompts} prompts", collecting),
        ("patch, layer x position", size, f"{n_pairs} pair", patched),
        ("audit, cue sweep", size, f"{n_asked} prompts", lambda times: _sweep(model, work, times * n_asked)),
    ]  # fmt: skip


def _sweep(model: Model, work: Any, n_asked: int) -> Job:
    some = [one for one in battery() if one.carrier in ("before", "after")][:8]
    contexts = tokens_of([p for c in some for p in around(work.prompts[:n_asked], c)], model)
    answers = [[[5, 6, 7], [8, 9, 10]] for _ in contexts]
    return lambda: log_probs(model, contexts, answers)


def _without_model(quick: bool, seed: int) -> list[Case]:
    n_rows, width, n_layers = (40, 16, 2) if quick else (400, 576, 6)

    def fitted(times: int) -> Job:
        X, y, train = draw(Workload("growth", n_layers, times * n_rows, width, None), seed)
        return lambda: fit_logistic(X, y, train)

    def judged(times: int) -> Job:
        world = World("growth", "nothing", "", families=6 if quick else 12, prompts=4 * times)
        planted = plant(world, 0)
        return lambda: judge(make_design(planted.design), planted.activations)

    shape = f"{n_rows} rows of {width}, {n_layers} layers, 5 folds"
    n_prompts = 2 * (6 if quick else 12) * 4 * 5
    return [
        ("fit probes", "no model", shape, fitted),
        ("judge a claim", "no model", f"{n_prompts} prompts", judged),
    ]
