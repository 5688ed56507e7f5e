"""Evidence on disk: every number that a claim rests on, as plain JSON, the same when it is read again."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from probes.evaluation.bootstrap import Estimate
from probes.evaluation.evidence import Evidence
from probes.evaluation.false_alarms import FalseAlarms
from probes.evaluation.recall import Recall
from probes.evaluation.within_triggered import WithinTriggered
from probes.foundation.artifact import write_text
from probes.foundation.errors import InputError
from probes.foundation.untrusted import read_json

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
