"""Sites of a grid one after the other, or side by side on a Ray cluster; finished ones are found again."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from probes.foundation.artifact import is_finished
from probes.foundation.digest import digest_json
from probes.foundation.errors import InputError, ProbesError, StageError, unknown
from probes.foundation.progress import progress
from probes.models.identity import Identity
from probes.models.loading import load_from
from probes.models.source import Source
from probes.patching.jobs import Job, Settings
from probes.patching.measures import Metric
from probes.patching.pairs import EncodedPair
from probes.patching.parts import Cell
from probes.patching.sources import Plan
from probes.patching.spans import Column
from probes.patching.stored import row

ENGINES = ("process", "ray")
# How often a worker may die, with the site in its hands begun anew, before the grid is given up.
ATTEMPTS = 3


@dataclasses.dataclass(frozen=True)
class Task:
    """The cells of one site under one plan; name: of its folder."""

    name: str
    plan: Plan
    cells: tuple[Cell, ...]


def run_tasks(
    job: Job, tasks: Sequence[Task], place: Path | None, engine: str
) -> dict[str, np.ndarray]:
    """The metric by task, `[cell, pair]`; each is stored as soon as it is there."""
    match engine:
        case "process":
            return {
                task.name: row(
                    place, task.name, job.facts(task.plan, task.cells),
                    partial(job.scores, task.plan, task.cells),
                )
                for task in tasks
            }  # fmt: skip
        case "ray":
            return _on_ray(job, tasks, place)
    raise unknown("engine", engine, ENGINES)


def _on_ray(job: Job, tasks: Sequence[Task], place: Path | None) -> dict[str, np.ndarray]:
    from probes.foundation.cluster import connected

    if job.model.source is None:
        raise InputError(
            f"{job.model.name} was made by hand, so Ray workers cannot load it: save it and load it "
            'with `load`, or use engine="process"'
        )
    facts = {task.name: job.facts(task.plan, task.cells) for task in tasks}
    todo = [
        task for task in tasks
        if place is None or not is_finished(place / task.name, digest_json(facts[task.name]))
    ]  # fmt: skip
    found: dict[str, np.ndarray] = {}
    if todo:
        with connected():
            import ray
            from ray.util import ActorPool

            n_actors = max(1, min(len(todo), int(ray.cluster_resources().get("CPU", 1))))
            again = ATTEMPTS - 1
            worker = ray.remote(num_cpus=1, max_restarts=again, max_task_retries=again)(Worker)
            given = (
                job.model.source, job.model.identity, torch.get_num_threads(),
                job.pairs, job.columns, job.metric, job.settings,
            )  # fmt: skip
            pool = ActorPool([worker.remote(*given) for _ in range(n_actors)])
            results = pool.map_unordered(lambda actor, task: actor.scores.remote(task), todo)
            with _told():
                for name, values in progress(results, "sites on Ray", total=len(todo)):
                    found[name] = row(place, name, facts[name], partial(np.asarray, values))
    for task in tasks:
        if task.name not in found:
            found[task.name] = row(
                place, task.name, facts[task.name],
                partial(job.scores, task.plan, task.cells),
            )  # fmt: skip
    return found


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Errors of a worker as they were raised there; and what to do where workers keep dying."""
    from ray import exceptions

    try:
        yield
    except exceptions.RayTaskError as error:
        if isinstance(error.cause, ProbesError):
            raise error.cause from None
        raise
    except (exceptions.RayActorError, exceptions.OutOfMemoryError) as error:
        why = " ".join(str(error).split())
        raise StageError(
            f"a Ray worker died {ATTEMPTS} times; of the last, Ray says: {why} Sites that are finished "
            "are kept where a folder is given. If it was killed for its memory, give smaller "
            "batch_tokens and a smaller memory_budget."
        ) from error


class Worker:
    """A process of a Ray cluster that has the model loaded."""

    def __init__(
        self,
        source: Source,
        identity: Identity,
        n_threads: int,
        pairs: tuple[EncodedPair, ...],
        columns: tuple[Column, ...],
        metric: Metric,
        settings: Settings,
    ) -> None:
        torch.set_num_threads(n_threads)
        model = load_from(source, identity)
        self.job = Job(model, pairs, columns, metric, settings)

    def scores(self, task: Task) -> tuple[str, np.ndarray]:
        self.job.look_ahead(task.cells)
        return task.name, self.job.scores(task.plan, task.cells)
