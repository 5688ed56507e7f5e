"""How fast this disk takes a file from start to end, in the same minutes as everything else."""

import functools
import os
from pathlib import Path

import numpy as np

from probes.foundation.artifact import disk_errors

PIECE = 8 << 20


def write_sequentially(file: Path, n_bytes: int) -> int:
    """Write one file in pieces of 8 MiB and wait until the disk has it; returns its size.

    Random bytes, so that a disk that compresses gains nothing.
    """
    piece = memoryview(_noise())
    with disk_errors(file), file.open("wb", buffering=0) as out:
        left = n_bytes
        while left > 0:
            left -= out.write(piece[:left])
        os.fsync(out.fileno())
    return file.stat().st_size


@functools.cache
def _noise() -> bytes:
    return np.random.default_rng(0).bytes(PIECE)
