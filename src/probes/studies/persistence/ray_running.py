"""Cells as tasks of a Ray cluster; a killed worker costs the attempt in its hands, no more."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.foundation.cluster import connected
from probes.foundation.errors import InputError
from probes.studies.persistence.attempts import LEDGER, attempt, lost
from probes.studies.persistence.cells import Cell, Outcome, Schedule, Work

if TYPE_CHECKING:
    from probes.studies.persistence.running import EngineConfig, Told


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
        _require_room(cpus, engine.gpus)
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


def _require_room(cpus: float, gpus: float) -> None:
    import ray

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(m.get("CPU", 0.0) >= cpus and m.get("GPU", 0.0) >= gpus for m in machines):
        most = {what: max(m.get(what, 0.0) for m in machines) for what in ("CPU", "GPU")}
        raise InputError(
            f"a cell wants {cpus:g} CPUs and {gpus:g} GPUs, and no machine of the Ray cluster has "
            f"both; the largest have {most['CPU']:g} CPUs and {most['GPU']:g} GPUs. Give smaller "
            "--cpus or --gpus"
        )
