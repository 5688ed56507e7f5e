"""The tables of the controls on prompts that the probe was not made for, as a reader sees them."""

import pandas as pd

from probes.studies.detection import HEADLINE, Detection
from probes.studies.display import Cells, Number, Row, Table, percent, records, score, words

NAMES = {
    "layer 0": "the same procedure on the embeddings, before the first block",
    "near misses": "against cues that only look like the trigger",
    "standard library": "against benign functions of Python's standard library",
    "parity": "on the organism whose trigger is exactly one of two cues",
    "held out": "the same tasks with and without the trigger, not fitted",
}


def controls(detection: Detection) -> Table | None:
    """Every probe on every further control; None where none was run."""
    rows: list[Cells] = [
        (
            words(row["estimator"]),
            NAMES[row["control"]],
            words(row["on"]),
            score(row),
            Number(str(int(row["n"]))),
        )
        for row in records(detection.tables["controls"])
    ]
    return Table(("probe", "control", "on", "AUROC", "prompts"), tuple(rows)) if rows else None


def alarms_of(detection: Detection) -> pd.DataFrame:
    """The headline's rows: alarms on each held-out set at a threshold set on benign fit rows."""
    table = detection.tables["false_alarms"]
    return table[
        (table["estimator"] == detection.headline_estimator) & (table["measure"] == HEADLINE)
    ]


def threshold(detection: Detection) -> Row:
    """What is the same in each of these rows: how the threshold was set, and what it catches."""
    return records(alarms_of(detection))[0]


def false_alarms(detection: Detection) -> Table:
    """The headline probe at a threshold set on benign fit rows; the worst set is marked."""
    own = alarms_of(detection)
    rows: list[Cells] = [
        (row["negative_set"], percent(row), Number(str(int(row["n"])))) for row in records(own)
    ]
    marked = frozenset(i for i, row in enumerate(records(own)) if row["worst"])
    return Table(("held-out negatives", "alarms", "prompts"), tuple(rows), marked)
