"""Rows of a grid on disk, so that a run that was stopped goes on with the sites that are left."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from probes.foundation.artifact import building, is_finished, is_made_from
from probes.foundation.digest import digest_json
from probes.foundation.errors import InputError, IntegrityError, unknown
from probes.foundation.memory import keep_freed_memory
from probes.foundation.progress import progress
from probes.foundation.workers import Pool, room
from probes.models.identity import Identity
from probes.models.loading import Model, for_workers, load_from
from probes.models.source import Source
from probes.patching.canary import check_difference
from probes.patching.jobs import Job, Settings
from probes.patching.measures import LogProbDifference, Metric
from probes.patching.pairs import EncodedPair
from probes.patching.parts import Cell
from probes.patching.refusals import check_matched, check_resampling, check_room
from probes.patching.result import Effects, summarise
from probes.patching.sources import Plan
from probes.patching.spans import Column

KIND = "patch-row"
FILE = "nats.npy"


def row(
    path: Path | None,
    name: str,
    settings: dict[str, Any],
    compute: Callable[[], Float[np.ndarray, "column pair"]],
) -> Float[np.ndarray, "column pair"]:
    """The numbers of this row: read where a finished artifact of the same settings lies, else made.

    settings: everything that determines the numbers, as JSON data; its digest is the key.
    Raises `InputError` where a row made from other settings lies at this place.
    """
    if path is None:
        return compute()
    place = path / name
    if is_made_from(place, settings):
        values = np.load(place / FILE, allow_pickle=False)
        if values.ndim != 2:
            raise IntegrityError(f"{place / FILE} has shape {values.shape}, not [column, pair]")
        return values
    values = compute()
    with building(place, kind=KIND, key=digest_json(settings), **settings) as folder:
        np.save(folder / FILE, values, allow_pickle=False)
    return values


ENGINES = ("process", "ray")


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

    source = for_workers(job.model)
    facts = {task.name: job.facts(task.plan, task.cells) for task in tasks}
    todo = [
        task for task in tasks
        if place is None or not is_finished(place / task.name, digest_json(facts[task.name]))
    ]  # fmt: skip
    found: dict[str, np.ndarray] = {}
    if todo:
        given = (
            source, job.model.identity, torch.get_num_threads(), job.pairs, job.columns, job.metric,
            job.settings,
        )  # fmt: skip
        with connected():
            import ray

            n_actors = min(len(todo), room(1, 0, "Start a machine with a CPU"))
            remote = ray.remote(num_cpus=1, max_restarts=0)(Worker)
            with Pool(
                lambda: remote.remote(*given),
                n_actors,
                [task.name for task in todo],
                todo.__getitem__,
                wants="1 CPU",
                advice="Sites that are finished are kept where a folder is given. If it was killed for "
                "its memory, give smaller batch_tokens and a smaller memory_budget.",
            ) as pool:
                for number, values in progress(pool.run(), "sites on Ray", total=len(todo)):
                    name = todo[number].name
                    found[name] = row(place, name, facts[name], partial(np.asarray, values))
    for task in tasks:
        if task.name not in found:
            found[task.name] = row(
                place, task.name, facts[task.name],
                partial(job.scores, task.plan, task.cells),
            )  # fmt: skip
    return found


class Worker:
    """A process of a Ray cluster that has the model loaded, once `start` was called."""

    def __init__(self, source: Source, identity: Identity, n_threads: int, *job: Any) -> None:
        self._source, self._identity, self._n_threads = source, identity, n_threads
        self._given = job

    def start(self) -> None:
        torch.set_num_threads(self._n_threads)
        self._job = Job(load_from(self._source, self._identity), *self._given)

    def compute(self, task: Task) -> np.ndarray:
        self._job.look_ahead(task.cells)
        return self._job.scores(task.plan, task.cells)


def patch_cells(
    model: Model,
    pairs: Sequence[EncodedPair],
    cells: Sequence[Cell],
    columns: Sequence[Column] = (),
    *,
    metric: Metric | None = None,
    plan: Plan | None = None,
    placebo: bool = False,
    n_boot: int = 1000,
    n_flips: int = 2000,
    settings: Settings | None = None,
    seed: int = 0,
    path: Path | str | None = None,
    engine: str = "process",
) -> Effects:
    """Patch every cell in every pair; no cell is skipped or approximated.

    pairs, columns: from `encode_pairs` and `make_columns`. cells: from `grid_cells` or `cell_set`.
    metric: by default the log-probability difference of the two continuations. plan: direction and
    values, by default denoising with the paired run. placebo: the same cells once more with values
    of mismatched pairs, which carry no news of the trigger. n_boot, n_flips: resamples for the
    intervals and for p; 0 for none. path: a folder where finished sites are kept and found again.
    engine: "process", or "ray" for one site per task on a cluster.
    Raises `InputError` for runs that do not differ in the metric, a metric that is not one number
    per prompt, or a site that this architecture lacks; `StageError` where a check fails: a run that
    is continued must end as the full forward pass, noise in each cell must move the output, and a
    sample of the cells must come out the same by full forward passes.
    """
    keep_freed_memory()
    metric, plan = metric or LogProbDifference(), plan or Plan(seed=seed)
    if not cells or not pairs:
        raise InputError(f"nothing to patch: {len(cells)} cells, {len(pairs)} pairs")
    check_resampling(pairs, n_boot, n_flips)
    check_matched(pairs, cells)
    check_room(pairs, model)
    job = Job(model, pairs, columns, metric, settings or Settings(seed=seed))
    place = None if path is None else Path(path)
    return measure(
        job, cells, plan, place, placebo=placebo, n_boot=n_boot, n_flips=n_flips, engine=engine,
        seed=seed,
    )  # fmt: skip


def measure(
    job: Job,
    cells: Sequence[Cell],
    plan: Plan,
    place: Path | None,
    *,
    check: Callable[[Job, np.ndarray], None] | None = None,
    placebo: bool = False,
    n_boot: int,
    n_flips: int,
    engine: str = "process",
    seed: int,
) -> Effects:
    """Every cell of a job, site by site. check: gets the other run's metric before anything is patched."""
    job.look_ahead(cells)
    model, metric = job.model, job.metric

    def both() -> np.ndarray:
        run, other = job.unpatched(plan)
        check_difference(metric.name, model.name, run, other, model.dtype)
        if check is not None:
            check(job, other)
        return np.stack([run, other])

    unpatched, other = row(place, "unpatched", job.facts(plan), both)
    sites = by_site(cells)
    tasks = [Task(site, plan, tuple(members)) for site, members in sites.items()]
    if placebo:
        blind = Plan(plan.direction, "placebo", plan.seed)
        tasks += [Task(f"placebo-{site}", blind, tuple(m)) for site, m in sites.items()]
    job.announce(cells, times=1 + placebo)
    found = run_tasks(job, tasks, place, engine)
    return summarise(
        model, metric, plan, job.pairs, [cell for members in sites.values() for cell in members],
        unpatched=unpatched, other=other, patched=np.concatenate([found[site] for site in sites]),
        placebo=np.concatenate([found[f"placebo-{s}"] for s in sites]) if placebo else None,
        n_boot=n_boot, n_flips=n_flips, seed=seed,
    )  # fmt: skip


def by_site(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Cells of one site together, sites in the order of their first cell."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.site, []).append(cell)
    return found
