"""Where a number comes from: versions, machine and time, recorded beside every result."""

import datetime
import functools
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "probes",
    "torch",
    "transformers",
    "transformer-lens",
    "scikit-learn",
    "numpy",
    "bandit",
    "safetensors",
    "tokenizers",
)


def provenance() -> dict[str, Any]:
    """Package versions, interpreter, machine and UTC time, as plain JSON data."""
    now = datetime.datetime.now(datetime.UTC)
    return {"created": now.isoformat(timespec="seconds"), **_fixed()}


def machine() -> str:
    """The machine in a few words: processor, cores that this process may use, memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_processor()}, {cores} cores, {_memory_gib():.0f} GiB"


@functools.cache
def _fixed() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "machine": machine(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
