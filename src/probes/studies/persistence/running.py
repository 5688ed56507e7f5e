"""Run a grid's cells: one after the other in this process, or side by side on a Ray cluster."""

from collections.abc import Callable, Sequence
from pathlib import Path

from probes.foundation.config import Config
from probes.foundation.errors import InputError, unknown
from probes.foundation.progress import bar
from probes.studies.persistence.attempts import attempt
from probes.studies.persistence.cells import Cell, Outcome, Schedule, Work

ENGINES = ("process", "ray")
Told = Callable[[Cell, Outcome], None]


class EngineConfig(Config):
    """Who runs the cells; changes how fast results come and never what they are.

    name: "process", or "ray": one machine with nothing configured, or the cluster at RAY_ADDRESS,
        all of whose machines must see the grid's folder under the same path.
    workers: cells side by side, with Ray; by default as many as find room.
    threads: of torch, for each cell; results are the same for the same number only.
    cpus, gpus: that Ray sets aside for each cell; gpus may be a fraction. cpus: by default as many
        as threads.
    retries: how often a cell whose worker was killed is tried again.
    """

    name: str = "process"
    workers: int | None = None
    threads: int = 1
    cpus: float | None = None
    gpus: float = 0.0
    retries: int = 3


def check_engine(engine: EngineConfig) -> None:
    """Refuse settings that no engine can follow; raises `InputError`."""
    if engine.name not in ENGINES:
        raise unknown("engine", engine.name, ENGINES)
    if engine.workers is not None and engine.name != "ray":
        raise InputError(
            "the process engine runs one cell at a time: give --workers to --engine ray"
        )
    for what, count in (("workers", engine.workers), ("threads", engine.threads)):
        if count is not None and count < 1:
            raise InputError(f"{what} is at least 1, not {count}")
    if (engine.cpus is not None and engine.cpus <= 0) or engine.gpus < 0 or engine.retries < 0:
        raise InputError(
            f"cpus is positive, gpus and retries are not negative; saw {engine.cpus}, "
            f"{engine.gpus} and {engine.retries}"
        )


def run_cells(
    cells: Sequence[Cell], out: Path, work: Work, engine: EngineConfig, told: Told
) -> dict[str, Outcome]:
    """Run all cells, in an order in which what a cell needs comes before it; outcomes by name.

    told: is told of each cell as it ends. Raises `InputError` for an engine that does not exist
    or cannot be reached; what goes wrong in a cell is its outcome.
    """
    check_engine(engine)
    schedule = Schedule(cells)
    with bar("grid", total=len(cells)) as shown:

        def end(cell: Cell, outcome: Outcome) -> None:
            told(cell, outcome)
            shown.update()
            for skipped in schedule.end(cell, outcome):
                told(skipped, schedule.outcomes[skipped.name])
                shown.update()

        if engine.name == "process":
            while (cell := schedule.next()) is not None:
                end(cell, attempt(cell, out, work, engine.threads))
        else:
            from probes.studies.persistence.ray_running import run_on_ray

            run_on_ray(schedule, out, work, engine, end)
    return {cell.name: schedule.outcomes[cell.name] for cell in cells}
