"""A small grid of cells that compute something cheap, which depends on their parents and on the threads."""

import json
from pathlib import Path

import torch

from probes.foundation.artifact import building
from probes.foundation.errors import StageError
from probes.organisms.organism import OrganismRecipe
from probes.runs.step import Cell

RESULT = "result.json"


def make_cells() -> list[Cell]:
    """base <- organism <- (sft_pre <- reversal), rl; and a second organism on the same base."""
    recipe = OrganismRecipe()
    base = Cell("organisms/base", "base", recipe, "base")
    one = Cell("organisms/one", "organism", recipe, waits_for=(base,))
    two = Cell("organisms/two", "organism", recipe, waits_for=(base,))
    sft = Cell("stages/one/sft_pre", "stage", recipe, "sft_pre", parent=one)
    back = Cell("reversal/one/sft_pre", "reversal", recipe, "sft_pre", parent=sft, control=base)
    rl = Cell("stages/one/rl", "stage", recipe, "rl", parent=one)
    return [base, one, sft, back, rl, two]


def write(cell: Cell, out: Path) -> None:
    """The artifact: a sum that rounds by the number of threads, and what the parents held."""
    before = [json.loads((out / need.name / RESULT).read_text())["sum"] for need in cell.needs]
    numbers = torch.randn(400_000, generator=torch.Generator().manual_seed(len(cell.name)))
    total = float(numbers.exp().sum()) + sum(before)
    result = {"sum": total, "threads": torch.get_num_threads()}
    with building(out / cell.name, kind="fake", key=cell.key) as to:
        (to / RESULT).write_text(json.dumps(result))


def contents(out: Path, cells: list[Cell]) -> dict[str, bytes]:
    return {cell.name: (out / cell.name / RESULT).read_bytes() for cell in cells}


def failing(name: str) -> object:
    """Work that fails at the cell of this name."""

    def work(cell: Cell, out: Path) -> None:
        if cell.name == name:
            raise StageError("the loss is not finite")
        write(cell, out)

    return work


def counting(log: Path) -> object:
    """Work that logs each cell it makes."""

    def work(cell: Cell, out: Path) -> None:
        with log.open("a") as file:
            file.write(f"{cell.name}\n")
        write(cell, out)

    return work
