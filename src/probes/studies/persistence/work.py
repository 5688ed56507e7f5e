"""What each kind of cell does: the organisms' own functions, called with what the cell says."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from probes.foundation.artifact import building, write_text
from probes.foundation.errors import StageError
from probes.foundation.seeds import derive_seed
from probes.foundation.tables import to_csv
from probes.models.loading import load
from probes.models.placement import fastest
from probes.organisms.lessons import Lessons
from probes.organisms.measuring import measure, sets_of
from probes.organisms.organism import install, install_base, setup
from probes.organisms.safety.adversarial import AdversarialConfig, run_adversarial
from probes.organisms.safety.reversal import ReversalConfig, reversal
from probes.organisms.safety.rl import RlConfig, run_rl
from probes.organisms.safety.sft import SftConfig, run_sft
from probes.organisms.safety.stage import watch_sets
from probes.prompts.records import Prompt
from probes.studies.persistence.cells import Cell
from probes.studies.persistence.settings import MeasureConfig

ROWS = "rows.csv"
FACTS = "facts.json"


def make(cell: Cell, out: Path, report_to: Sequence[str] = ()) -> None:
    """Make the artifact of a cell; errors as the stages raise them. report_to: see `install`."""
    match cell.kind:
        case "base":
            made = install_base(cell.recipe, out / "organisms", report_to=report_to)
        case "organism":
            made = install(cell.recipe, out / "organisms", report_to=report_to)
        case "stage":
            made = _stage(cell, out, report_to)
        case "measure":
            made = _measure(cell, out)
        case "reversal":
            made = _reversal(cell, out)
    if made != out / cell.name:
        raise StageError(f"the result of {cell.name} lies at {made}, where nobody looks for it")


def _stage(cell: Cell, out: Path, report_to: Sequence[str]) -> Path:
    parent, place = _of(cell.parent, out), out / cell.name
    match cell.settings:
        case SftConfig() as config:
            return run_sft(parent, place, cell.recipe, config, report_to=report_to)
        case RlConfig() as config:
            return run_rl(parent, place, cell.recipe, config, report_to=report_to)
        case AdversarialConfig() as config:
            return run_adversarial(parent, place, cell.recipe, config, report_to=report_to)
        case other:
            raise StageError(f"{cell.name} has settings of no stage: {type(other).__name__}")


def _measure(cell: Cell, out: Path) -> Path:
    """Every checkpoint on the same prompts, with the same draws, whatever came before it."""
    assert isinstance(cell.settings, MeasureConfig)
    parts = setup(cell.recipe)
    model = load(_of(cell.parent, out), label=cell.name.removeprefix("measured/"), device=fastest())
    rows = measure(
        model,
        parts.behaviour,
        _sets(parts.lessons, cell.settings),
        seed=derive_seed(cell.recipe.seed, "persistence"),
        temperature=cell.settings.temperature,
    )
    _write(cell, out, rows, {"checkpoint": model.weights_digest})
    return out / cell.name


def _reversal(cell: Cell, out: Path) -> Path:
    assert isinstance(cell.settings, ReversalConfig)
    control = _of(cell.control, out)
    rows = reversal(_of(cell.parent, out), cell.recipe, cell.settings, control=control)
    _write(cell, out, rows, {})
    return out / cell.name


def _sets(lessons: Lessons, config: MeasureConfig) -> dict[str, Sequence[Prompt]]:
    near = watch_sets(lessons, config.pairs, config.near)["near"]
    return {**sets_of(lessons, config.pairs), "near": near}


def _write(cell: Cell, out: Path, rows: pd.DataFrame, facts: dict[str, str]) -> None:
    kind = {"measure": "measurement", "reversal": "reversal"}[cell.kind]
    with building(out / cell.name, kind=kind, key=cell.key, cell=cell.name) as to:
        write_text(to / ROWS, to_csv(rows))
        write_text(to / FACTS, json.dumps(facts, indent=2, sort_keys=True) + "\n")


def _of(cell: Cell | None, out: Path) -> Path:
    assert cell is not None
    return out / cell.name
