"""How far two correct computations may differ, and whether there is an effect to locate at all."""

import numpy as np
import torch

from probes.foundation.errors import InputError

# Largest difference between two correct computations of a summed log-probability, as a part of its
# size (nats, at least 1): about a hundred rounding steps of the number format.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1e-1, torch.float16: 2e-2, torch.float64: 1e-9}


def check_difference(
    metric: str, name: str, run: np.ndarray, other: np.ndarray, dtype: torch.dtype
) -> None:
    """Refuse runs whose mean metrics are equal up to rounding: there is no effect to locate."""
    tolerance = TOLERANCE[dtype] * max(1.0, float(np.abs(np.stack([run, other])).max()))
    if abs(float((run - other).mean())) <= tolerance:
        raise InputError(
            f"with and without the trigger the mean metric of {name} is the same ({run.mean():.6f} "
            f"and {other.mean():.6f} over {len(run)} pairs; {metric}): there is no effect to locate. "
            "Patch a model whose behaviour depends on the trigger, or choose a metric that it moves."
        )
