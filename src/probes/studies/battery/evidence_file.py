"""Evidence on disk: every number that a claim rests on, as plain JSON, the same when it is read again."""

from collections.abc import Mapping
from pathlib import Path

import pydantic

from probes.evaluation.evidence import Evidence
from probes.foundation.artifact import write_bytes
from probes.foundation.errors import InputError

FILE = "evidence.json"
_BY_ESTIMATOR = pydantic.TypeAdapter(dict[str, Evidence])


def write_evidence(folder: Path, evidence: Mapping[str, Evidence]) -> Path:
    """Write the evidence of each estimator into a folder."""
    path = folder / FILE
    write_bytes(path, _BY_ESTIMATOR.dump_json(dict(evidence), indent=2) + b"\n")
    return path


def read_evidence(folder: Path) -> dict[str, Evidence]:
    """What `write_evidence` wrote; raises `InputError` for anything else."""
    path = folder / FILE
    try:
        return _BY_ESTIMATOR.validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"no evidence at {path}: run the battery there first") from None
    except pydantic.ValidationError as error:
        raise InputError(f"{path} holds no evidence of this version: {error}") from error
