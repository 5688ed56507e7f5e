"""Independent random streams from one seed, so that adding a stage never changes another's draws."""

import hashlib

import numpy as np


def derive_seed(seed: int, *names: object) -> int:
    """A 32-bit seed for the stream of this name under the run's seed."""
    text = "|".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def stream(seed: int, *names: object) -> np.random.Generator:
    """A numpy generator for the stream of this name under the run's seed."""
    return np.random.default_rng(derive_seed(seed, *names))
