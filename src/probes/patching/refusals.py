"""What cannot be answered is refused before anything runs, in the same words by every way of patching; and how far two correct computations may differ."""

from collections.abc import Sequence

import numpy as np
import torch

from probes.foundation.errors import InputError
from probes.models.forward import check_lengths
from probes.models.loading import Model
from probes.patching.pairs import EncodedPair
from probes.patching.parts import Cell

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


def check_resampling(pairs: Sequence[object], *resamples: int) -> None:
    """Refuse intervals or p over a single pair. resamples: numbers of draws, 0 for none."""
    if any(resamples) and len(pairs) < 2:
        raise InputError(
            f"intervals and p over pairs need at least 2 pairs, not {len(pairs)}; give n_boot=0 and "
            "n_flips=0 for none"
        )


def check_room(pairs: Sequence[EncodedPair], model: Model) -> None:
    """Refuse pairs that with their continuations are longer than the model reads."""
    check_lengths([p.n_prompt + max(len(p.safe), len(p.defect)) for p in pairs], model.hf)


def check_matched(pairs: Sequence[EncodedPair], cells: Sequence[Cell]) -> None:
    """Refuse what means something else at another position, where versions differ in length."""
    moved = next((pair for pair in pairs if pair.matched is not None), None)
    for part in (part for cell in cells if moved for part in cell.parts):
        if part.kind in ("q", "k", "pattern"):
            raise InputError(
                f"{part} cannot be patched in pair {moved and moved.name!r}, whose versions differ in "
                "length: queries and keys are turned by their position, and a pattern has a weight for "
                "each token. Patch the residual stream, z, v, attn_out or mlp_out, or pairs of equal length"
            )
