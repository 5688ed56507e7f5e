"""Part "memory": the peak of a collection must not grow with the number of prompts.

Each peak is that of a process of its own, `python -m probes.benchmarks.memory`, which collects short
prompts from a generator.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from probes.benchmarks.result import Asked, row
from probes.foundation.errors import StageError
from probes.prompts.records import Prompt

FEW, MANY = 1_000, 100_000
STATUS = Path("/proc/self/status")


def measure(
    checkpoint: Path, few: int, many: int, place: Path, *, judged: bool
) -> list[dict[str, Any]]:
    """Peak memory when collecting few prompts and many, in a fresh process each."""
    peaks = {n: peak(checkpoint, n, place) for n in (few, many)}
    job, metric = "peak memory of collect", "peak resident memory"
    names = {n: f"{n:,} prompts" for n in peaks}
    return [
        row(job, names[few], metric, float(peaks[few]), "bytes"),
        row(
            job, names[many], metric, float(peaks[many]), "bytes",
            against=names[few], ratio=peaks[many] / peaks[few],
            asked=Asked("<=", 1.1), judged=judged,
        ),
    ]  # fmt: skip


def peak(checkpoint: Path, n_prompts: int, place: Path) -> int:
    """Peak resident memory, in bytes, of a process that collects this many prompts."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        command = [sys.executable, "-m", "probes.benchmarks.memory", "--n", str(n_prompts)]
        done = subprocess.run(
            [*command, "--checkpoint", str(checkpoint), "--out", str(Path(folder) / "store")],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise StageError(f"collecting {n_prompts:,} prompts failed:\n{done.stderr.strip()}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    if found["n_prompts"] != n_prompts:
        raise StageError(f"{found['n_prompts']:,} prompts were collected instead of {n_prompts:,}")
    return int(found["peak_bytes"])


def prompts(n_prompts: int) -> Iterator[Prompt]:
    """Short prompts, each different, made when asked for."""
    for number in range(n_prompts):
        text = f"Add {number} to {number % 7} and {number % 13}"
        yield Prompt(text, "benchmark", "benchmark", "benchmark", f"pair{number}", triggered=False)


def main() -> None:
    """Collect, and print the peak as JSON."""
    from probes.activations.collect import collect
    from probes.models.loading import load

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    store = collect(load(given.checkpoint), prompts(given.n), given.out)
    print(json.dumps({"n_prompts": len(store), "peak_bytes": own_peak()}))


def own_peak() -> int:
    """Peak resident memory of this process so far, in bytes.

    Linux hands `ru_maxrss` of a parent down to its children, so that a large parent would hide how
    much they themselves need; there the peak of the address space is read instead.
    """
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()
