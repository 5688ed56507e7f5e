"""Run a grid's cells: one after the other in this process, or side by side on a Ray cluster."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from probes.foundation.cluster import connected
from probes.foundation.config import Config
from probes.foundation.errors import InputError, unknown
from probes.foundation.progress import bar
from probes.foundation.terminal import one_line
from probes.foundation.workers import room
from probes.runs.step import LEDGER, Cell, Outcome, Schedule, Work, attempt, lost

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


def tell(cell: Cell, outcome: Outcome) -> None:
    """A line on standard error for a cell that took time or has no result."""
    if not outcome.kept:
        said = f"{outcome.seconds:.0f} s" if outcome.status == "done" else outcome.reason
        tqdm.write(one_line(f"{outcome.status}: {cell.name} ({said})"), file=sys.stderr)


def run_cells(
    cells: Sequence[Cell], out: Path, work: Work, engine: EngineConfig, told: Told = tell
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
            run_on_ray(schedule, out, work, engine, end)
    return {cell.name: schedule.outcomes[cell.name] for cell in cells}


def run_on_ray(
    schedule: Schedule, out: Path, work: Work, engine: "EngineConfig", end: "Told"
) -> None:
    """Run the cells of a schedule, as many side by side as find room.

    Raises `InputError` for a cluster that cannot be reached, has no machine large enough, or has
    machines that do not see the grid's folder.
    """
    out = out.resolve()
    with connected(n_cpus=engine.workers):
        import ray
        from ray import exceptions

        cpus = engine.cpus if engine.cpus is not None else float(engine.threads)
        room(cpus, engine.gpus, "Give smaller --cpus or --gpus")
        # A worker's libraries read their threads once, as they are imported.
        variables = {
            name: str(engine.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
        } | {"TOKENIZERS_PARALLELISM": "false"}
        remote = ray.remote(
            num_cpus=cpus,
            num_gpus=engine.gpus,
            max_retries=engine.retries,
            retry_exceptions=False,
            runtime_env={"env_vars": variables},
        )(_in_worker)
        token = _leave_token(out)
        running: dict[Any, Cell] = {}
        while True:
            while engine.workers is None or len(running) < engine.workers:
                cell = schedule.next()
                if cell is None:
                    break
                running[remote.remote(cell, out, work, engine.threads, token)] = cell
            if not running:
                return
            ready, _ = ray.wait(list(running))
            for reference in ready:
                cell = running.pop(reference)
                try:
                    outcome: Outcome = ray.get(reference)
                except exceptions.RayTaskError as error:
                    if isinstance(error.cause, InputError):
                        raise error.cause from None
                    raise
                except (
                    exceptions.WorkerCrashedError,
                    exceptions.OutOfMemoryError,
                    exceptions.NodeDiedError,
                    exceptions.ObjectLostError,
                ) as error:
                    why = " ".join(str(error).split())
                    reason = (
                        f"{1 + engine.retries} workers died of it; of the last, Ray says: {why}"
                    )
                    outcome = lost(cell, out, reason)
                end(cell, outcome)


def _in_worker(cell: Cell, out: Path, work: Work, n_threads: int, token: str) -> Outcome:
    seen = out / LEDGER / TOKEN
    if not seen.exists() or seen.read_text() != token:
        raise InputError(
            f"a Ray worker does not see the grid's folder {out}: every machine of the cluster needs "
            "it under this path. Choose an --out on a disk that they share"
        )
    return attempt(cell, out, work, n_threads)


TOKEN = "token"


def _leave_token(out: Path) -> str:
    """A word in the grid's folder, by which a worker knows that it sees the same one."""
    from probes.foundation.artifact import write_text

    token = os.urandom(8).hex()
    write_text(out / LEDGER / TOKEN, token)
    return token
