"""Checks that can fail: a patch reaches the model, and patching everything is the clean run.

Batched patching that patches nothing gives a grid of zeros that looks like a finding.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probes.foundation.errors import InputError, StageError
from probes.foundation.seeds import derive_seed
from probes.models.encoding import pad
from probes.models.forward import inputs
from probes.models.hooks import replacing
from probes.models.sites import Site
from probes.patching.cells import Runner
from probes.patching.pairs import EncodedPair
from probes.patching.spans import Column

# Largest difference between two correct computations of a summed log-probability, as a part of its
# size (nats, at least 1): about a hundred rounding steps of the number format.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1e-1, torch.float16: 2e-2, torch.float64: 1e-9}
WHOLE = Site("resid_pre", 0)
# Noise as large as the residual stream moves the final hidden state of that token by about its own
# size; a patch that is not applied moves it by exactly 0. This lies far from both.
MOVED = 1e-3


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


def check_whole(
    runner: Runner,
    pairs: Sequence[EncodedPair],
    columns: Sequence[Column],
    clean: Float[np.ndarray, "pair"],
) -> float:
    """Patch all columns before the first block: it must restore the clean run.

    Returns the largest error in nats. Raises `StageError` where it exceeds the tolerance, and
    where the columns do not cover each prompt position exactly once.
    """
    together = []
    for i, pair in enumerate(pairs):
        covered = sorted(p for column in columns for p in column.positions[i])
        if covered != list(range(pair.n_prompt)):
            raise StageError(
                f"the columns do not cover each of the {pair.n_prompt} positions of pair "
                f"{pair.name!r} exactly once"
            )
        together.append(covered)
    values = runner.residuals(pairs, "clean", WHOLE)
    restored = runner.patched(pairs, WHOLE, [together], values, "patching everything")[0]
    allowed = TOLERANCE[values[0].dtype] * np.maximum(np.abs(clean), 1.0)
    errors = np.abs(restored - clean)
    if (errors > allowed).any():
        worst = int((errors - allowed).argmax())
        raise StageError(
            f"patching every position at {WHOLE} does not restore the clean run: pair "
            f"{pairs[worst].name!r} gives {restored[worst]:.6f} nats, clean {clean[worst]:.6f}. "
            "Patches are wrong for this architecture; run `probes doctor`."
        )
    return float(errors.max())


def check_noise(
    runner: Runner,
    pair: EncodedPair,
    site: Site,
    columns: Sequence[Sequence[int]],
    residual: Float[Tensor, "pos d_model"],
    seed: int,
) -> None:
    """Put noise at each cell of one prompt: the final hidden state there must change.

    columns: positions of this pair per column. residual: its stream at `site`, for the scale.
    Raises `StageError` naming the first cell that patches nothing.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "noise", str(site)))
    noise = torch.randn(residual.shape, generator=generator).to(residual)
    noisy = residual + noise * residual.square().mean(-1, keepdim=True).sqrt()
    per_batch = max(1, runner.batch_tokens // pair.n_prompt)
    trunk = runner.hf.base_model
    for start in range(0, len(columns), per_batch):
        part = columns[start : start + per_batch]
        where = torch.zeros(len(part), pair.n_prompt, dtype=torch.bool)
        for row, positions in enumerate(part):
            where[row, list(positions)] = True
        batch = pad([pair.corrupted] * len(part), runner.pad_id)
        with torch.no_grad():
            plain = trunk(**inputs(trunk, batch)).last_hidden_state
            with replacing(runner.hf, site, where, noisy.unsqueeze(0)):
                changed = trunk(**inputs(trunk, batch)).last_hidden_state
        moved = ((changed - plain).abs().amax(-1) > MOVED * plain.abs().amax(-1)).cpu()
        for row in range(len(part)):
            if not where[row].any() or not bool(moved[row][where[row]].all()):
                raise StageError(
                    f"noise patched in at {site}, column {start + row}, does not reach the model's "
                    "output: this cell patches nothing. Run `probes doctor` on this model."
                )
