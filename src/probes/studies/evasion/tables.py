"""What one organism does and who detects it, in tidy rows: one row per detector and measure."""

from typing import Any

import pandas as pd

from probes.evaluation.bootstrap import Estimate, auroc_interval
from probes.evaluation.over_seeds import table_over_seeds
from probes.evaluation.proportions import recall_at
from probes.evaluation.worst_set import worst_set
from probes.foundation.tables import INTERVAL, MEASURE, SITE, N
from probes.organisms.measurement import LOSS
from probes.probing.frozen import Direction
from probes.probing.random_directions import random_directions
from probes.studies.evasion.config import ExamineConfig
from probes.studies.evasion.detectors import RANDOM, Frame, Labelled, Scored, detect_all

CONTRAST, WORST, RECALL = "contrast", "worst_set", "recall"
MEASURES = (CONTRAST, WORST, RECALL)
COLUMNS = ["detector", SITE, MEASURE, *INTERVAL, N]


def detector_rows(
    one: Labelled, given: Direction, estimator: str, config: ExamineConfig, seed: int
) -> pd.DataFrame:
    """Columns `COLUMNS`, with 95% intervals over prompts.

    `contrast`: AUROC of held-out tasks with and without the trigger, families that no probe was fitted
    on. `worst_set`: AUROC against the hardest set of negatives, the trigger's look-alikes among them.
    `recall`: of the same positives, the threshold set on those negatives together.
    """
    rows = [
        {"detector": scored.detector, "site": scored.site, "measure": measure, **found.as_row()}
        for scored in detect_all(one, given, estimator, config, seed)
        for measure, found in judged(scored, one.frame, config, seed).items()
    ]
    return pd.DataFrame([*rows, *_random(one, given.site, config, seed)], columns=COLUMNS)


def judged(scored: Scored, frame: Frame, config: ExamineConfig, seed: int) -> dict[str, Estimate]:
    """The three measures of one detector."""
    boot: dict[str, Any] = {"n_boot": config.n_boot, "seed": seed}
    c, w, scores = frame.contrast, frame.worst, scored.scores
    worst = worst_set(scores[w], frame.y[w], frame.negative_set[w], frame.pairs[w], **boot)
    rate = config.false_positive_rate
    return {
        CONTRAST: auroc_interval(frame.y[c], scores[c], frame.pairs[c], **boot),
        WORST: worst.auroc,
        RECALL: recall_at(
            frame.y[w], scores[w], frame.pairs[w], false_positive_rate=rate, **boot
        ).recall,
    }


def _random(one: Labelled, site: str, config: ExamineConfig, seed: int) -> list[dict[str, Any]]:
    """What 95% of random directions at the evaded site stay below; no interval, they are the null."""
    frame, X = one.frame, one.seen.X[site]
    rows = []
    for measure, mask in ((CONTRAST, frame.contrast), (WORST, frame.worst)):
        drawn = random_directions(
            {site: X[frame.fit]},
            frame.y[frame.fit],
            {site: X[mask]},
            frame.y[mask],
            n=config.n_random,
            seed=seed,
            negative_set=frame.negative_set[mask] if measure == WORST else None,
        )
        value = drawn.percentile(site)
        row = {"detector": RANDOM, "site": site, "measure": measure, "value": value}
        rows.append(row | {"low": value, "high": value, "n": int(mask.sum())})
    return rows


BY = ["against", "organism", "penalty"]


def pooled_detection(rows: pd.DataFrame) -> pd.DataFrame:
    """Detectors over seeds: `BY`, `detector`, `measure`, `value`, `low`, `high`, `seeds`."""
    return table_over_seeds(rows, [*BY, "detector", MEASURE])


def pooled_behaviour(rows: pd.DataFrame) -> pd.DataFrame:
    """Rates over seeds: `BY`, `set`, `kind`, `triggered`, `measure`, `value`, `low`, `high`, `seeds`,
    and `installed`, the share of these seeds in which the organism is one."""
    rates = rows[rows["measure"] != LOSS]
    names = [*BY, "set", "kind", "triggered", MEASURE]
    shares = rates.groupby(names, sort=False, as_index=False)["installed"].mean()
    return table_over_seeds(rates, names).merge(shares, on=names, validate="one_to_one")
