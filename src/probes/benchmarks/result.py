"""Seconds that can be compared, and what a benchmark found: one row per measurement, with what it is held against.

Contenders take turns, so that a slow minute of the machine hits all.
"""

import dataclasses
import gc
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch

from probes.foundation.errors import InputError
from probes.foundation.html import html_table
from probes.foundation.progress import bar
from probes.foundation.provenance import machine
from probes.foundation.tables import write_table

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
    before: Callable[[str], None] = lambda _: None,
) -> dict[str, Seconds]:
    """Time every job `repeats` times, A B C A B C, each in an empty folder under `place`.

    before: gets a job's name; not timed. after: gets its name, its result and its folder; not timed. settle: waits for work that a
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
                    before(name)
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


COLUMNS = (
    "job",
    "contender",
    "metric",
    "value",
    "low",
    "high",
    "unit",
    "against",
    "ratio",
    "asked",
    "reached",
)


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a ratio must be: sense is ">=", ">" or "<="."""

    sense: str
    bound: float

    def met(self, ratio: float) -> bool:
        match self.sense:
            case ">=":
                return ratio >= self.bound
            case ">":
                return ratio > self.bound
            case "<=":
                return ratio <= self.bound
        raise ValueError(f"no such sense: {self.sense!r}")

    def __str__(self) -> str:
        return f"{self.sense} {self.bound:g}"


def row(
    job: str,
    contender: str,
    metric: str,
    value: Rate | float,
    unit: str,
    *,
    against: str = "",
    ratio: float | None = None,
    asked: Asked | None = None,
    judged: bool = True,
) -> dict[str, Any]:
    """One measurement. low and high are the slowest and the fastest repetition.

    judged: False for a smoke run, whose ratios say nothing: then `reached` stays empty.
    """
    rate = value if isinstance(value, Rate) else Rate(value, value, value)
    reached = ""
    if judged and asked is not None and ratio is not None:
        reached = "yes" if asked.met(ratio) else "no"
    return {
        "job": job,
        "contender": contender,
        "metric": metric,
        "value": rate.median,
        "low": rate.low,
        "high": rate.high,
        "unit": unit,
        "against": against,
        "ratio": ratio,
        "asked": str(asked) if asked else "",
        "reached": reached,
    }


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Benchmark:
    """The rows of one run and the facts that they hold for.

    table: columns as in `COLUMNS`. facts: machine, threads, model, prompts, repetitions.
    """

    table: pd.DataFrame
    facts: dict[str, Any]

    @property
    def shown(self) -> pd.DataFrame:
        """The table as text, for a screen."""
        found = pd.DataFrame(index=self.table.index)
        found["job"] = self.table["job"]
        found["contender"] = self.table["contender"]
        found["measured [low, high]"] = [
            _measured(*cells) for cells in self.table[["value", "low", "high", "unit"]].to_numpy()
        ]
        found["ratio"] = ["" if pd.isna(r) else f"{r:.3g}" for r in self.table["ratio"]]
        for name in ("against", "asked", "reached"):
            found[name] = self.table[name]
        return found

    @property
    def header(self) -> str:
        """The facts, a line each."""
        return "\n".join(f"{name}: {value}" for name, value in self.facts.items())

    def __repr__(self) -> str:
        return f"{self.header}\n\n{self.shown.to_string(index=False)}"

    def _repr_html_(self) -> str:
        return html_table(self.shown, self.header)


def _measured(value: float, low: float, high: float, unit: str) -> str:
    if unit == "bytes/s":
        value, low, high, unit = value / 1e6, low / 1e6, high / 1e6, "MB/s"
    if unit == "bytes":
        value, low, high, unit = value / 2**20, low / 2**20, high / 2**20, "MiB"
    spread = "" if low == value == high else f" [{low:.4g}, {high:.4g}]"
    return f"{value:.4g}{spread} {unit}"


def repetitions(asked: int | None, otherwise: int) -> int:
    """How often each job is timed."""
    repeats = otherwise if asked is None else asked
    if repeats < 1:
        raise InputError(f"a benchmark repeats at least once, not {repeats} times")
    return repeats


def surroundings(device: str = "cpu") -> dict[str, Any]:
    """The facts that all speeds depend on."""
    found: dict[str, Any] = {"machine": machine(), "threads": torch.get_num_threads()}
    if torch.device(device).type == "cuda":
        found["accelerator"] = torch.cuda.get_device_name(device)
    return found


def told(repeats: int) -> str:
    """How often each job was timed, as a table's facts say it."""
    return f"{repeats}, in turns; medians [slowest, fastest]"


@contextmanager
def temporary(out: Path | str) -> Iterator[Path]:
    """A folder under `out` that is gone afterwards, whatever happens."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=".tmp-bench-", dir=out))
    try:
        yield place
    finally:
        shutil.rmtree(place)


def finished(
    file: Path, rows: Sequence[dict[str, Any]], facts: dict[str, Any], seed: int
) -> Benchmark:
    """Write the table with its provenance, and give what was found."""
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    write_table(file, table, seed=seed, facts=facts)
    return Benchmark(table, facts)
