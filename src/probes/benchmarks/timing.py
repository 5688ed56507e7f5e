"""Seconds that can be compared: contenders take turns, so that a slow minute of the machine hits all."""

import dataclasses
import gc
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from probes.foundation.progress import bar

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Seconds:
    """What a job took, in the order of the repetitions; processor: of all cores together."""

    each: tuple[float, ...]
    processor: tuple[float, ...] = ()

    @property
    def median(self) -> float:
        return statistics.median(self.each)

    def rate(self, amount: float) -> "Rate":
        """How much of `amount` was done per second."""
        return Rate(amount / self.median, amount / max(self.each), amount / min(self.each))

    def of_all_cores(self, times: float) -> "Rate":
        """The processor's seconds, times a number; on a busy machine these still compare."""
        busy = self.processor or (float("nan"),)
        return Rate(times * statistics.median(busy), times * min(busy), times * max(busy))


@dataclasses.dataclass(frozen=True)
class Rate:
    """A speed or a time: the median, and the least and the greatest of the repetitions."""

    median: float
    low: float
    high: float


def take_turns(
    jobs: Mapping[str, Callable[[Path], T]],
    repeats: int,
    place: Path,
    *,
    after: Callable[[str, T, Path], None],
    settle: Callable[[], None] = lambda: None,
) -> dict[str, Seconds]:
    """Time every job `repeats` times, A B C A B C, each in an empty folder under `place`.

    after: gets a job's name, its result and its folder; not timed. settle: waits for work that a
    job has left under way (a GPU's), and is timed.
    Before each job memory is freed and the disk has finished what earlier ones gave it to write.
    """
    each: dict[str, list[float]] = {name: [] for name in jobs}
    busy: dict[str, list[float]] = {name: [] for name in jobs}
    with bar("benchmark", total=repeats * len(jobs)) as turns:
        for _ in range(repeats):
            for name, job in jobs.items():
                folder = Path(tempfile.mkdtemp(prefix="turn-", dir=place))
                try:
                    gc.collect()
                    os.sync()
                    settle()
                    start, cpu = time.perf_counter(), time.process_time()
                    result = job(folder)
                    settle()
                    each[name].append(time.perf_counter() - start)
                    busy[name].append(time.process_time() - cpu)
                    after(name, result, folder)
                    del result
                finally:
                    shutil.rmtree(folder)
                turns.update(1)
    return {name: Seconds(tuple(each[name]), tuple(busy[name])) for name in jobs}


def synchroniser(device: Any) -> Callable[[], None]:
    """What waits until this device is idle; nothing to wait for on the CPU."""
    import torch

    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return lambda: None


def fastest(names: Sequence[str], seconds: Mapping[str, Seconds]) -> str:
    """Of these, the one with the smallest median."""
    return min(names, key=lambda name: seconds[name].median)
