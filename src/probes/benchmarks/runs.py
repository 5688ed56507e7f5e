"""What every benchmark does around its measuring: a folder of its own, and the table at the end."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from probes.benchmarks.result import COLUMNS, Benchmark
from probes.foundation.errors import InputError
from probes.foundation.provenance import machine
from probes.foundation.tables import write_table


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
