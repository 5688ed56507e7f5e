"""One estimator on one organism, and the estimates by which it is judged."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from probes.detection.config import ProbeConfig
from probes.detection.evidence import Estimates, Measure
from probes.detection.split import Frame
from probes.evaluation.bootstrap import auroc_interval
from probes.evaluation.worst_set import worst_set
from probes.probing.sweep import Sweep

MEASURES: tuple[Measure, ...] = ("contrast", "worst_set")


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """One estimator on one organism: its sweep, and by site the scores of all rows and estimates."""

    sweep: Sweep
    scores: Mapping[str, np.ndarray]
    estimates: Mapping[str, Estimates]

    @property
    def best(self) -> Estimates:
        return self.estimates[self.sweep.best_site]


def estimates(scores: np.ndarray, frame: Frame, config: ProbeConfig) -> Estimates:
    c, w = frame.contrast, frame.worst
    boot: dict[str, Any] = {"n_boot": config.n_boot, "seed": config.seed}
    return {
        "contrast": auroc_interval(frame.y[c], scores[c], frame.pairs[c], **boot),
        "worst_set": worst_set(
            scores[w], frame.y[w], frame.negative_set[w], frame.pairs[w], **boot
        ).auroc,
    }
