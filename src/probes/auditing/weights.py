"""D6, the weights: how large the difference to the reference is, and how concentrated in few directions."""

from typing import Any

import numpy as np
import torch

from probes.auditing.detector import Clock, Reading
from probes.auditing.subject import Subject


def weights(subject: Subject, clock: Clock) -> Reading:
    """Score: relative norm of the difference, which also is the baseline "norm alone"."""
    name, meaning = "weights", "relative norm of the difference to the reference"
    if subject.reference is None:
        return Reading(name, None, meaning, "it needs a reference")
    mine, other = (dict(model.hf.named_parameters()) for model in subject.compared)
    if {k: tuple(v.shape) for k, v in mine.items()} != {k: tuple(v.shape) for k, v in other.items()}:  # fmt: skip
        return Reading(name, None, meaning, "the reference has other matrices")
    rows: list[dict[str, Any]] = []
    squared, whole, left_out = 0.0, 0.0, 0
    kurtosis: list[float] = []
    first: list[float] = []
    for key, value in mine.items():
        difference = (value.detach() - other[key].detach()).float()
        squared += float(difference.square().sum())
        whole += float(other[key].detach().float().square().sum())
        if difference.ndim != 2 or not bool(difference.any()):
            continue
        if clock.over and rows:
            left_out += 1
            continue
        flat = difference.flatten()
        kurtosis.append(float((flat**4).mean() / flat.square().mean() ** 2))
        if min(difference.shape) > 1024 or "embed" in key:
            continue
        energy = torch.linalg.svdvals(difference).square()
        share = energy / energy.sum()
        first.append(float(share[0]))
        rows.append(
            {
                "matrix": key, "relative norm": round(float(difference.norm() / other[key].norm().clamp(min=1e-9)), 4),
                "first direction": round(float(share[0]), 3),
                "first 16": round(float(share[:16].sum()), 3),
                "entropy": round(float(-(share * share.clamp(min=1e-12).log()).sum()), 3),
            }
        )  # fmt: skip
    rows.sort(key=lambda row: -float(row["relative norm"]))
    summary = {
        "matrix": "all, mean", "relative norm": round((squared / max(whole, 1e-30)) ** 0.5, 4),
        "first direction": round(float(np.mean(first or [0.0])), 3),
        "kurtosis": round(float(np.mean(kurtosis or [0.0])), 2),
    }  # fmt: skip
    return Reading(
        name, (squared / max(whole, 1e-30)) ** 0.5, meaning,
        "what was taught: it sees that a model was trained, and how", (summary, *rows[:5]),
        whole=not left_out,
    )  # fmt: skip
