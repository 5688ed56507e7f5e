"""Every cell of a grid patched exactly, site by site, in process or on Ray; and how far the trigger moves the answer as a whole.

Finished sites are kept on disk, so that a run that was stopped goes on with those that are left.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from probes.evaluation.bootstrap import Estimate, interval, mean_statistic
from probes.foundation.artifact import building, is_finished, is_made_from
from probes.foundation.digest import digest_json
from probes.foundation.errors import InputError, IntegrityError, StageError, unknown
from probes.foundation.memory import keep_freed_memory
from probes.foundation.outputs import writes
from probes.foundation.progress import progress
from probes.foundation.workers import Pool, room
from probes.models.identity import Identity
from probes.models.loading import Model, for_workers, load_from
from probes.models.sites import RESIDUAL, Site, parse_site, residual_sites
from probes.models.source import Source
from probes.patching.jobs import Job, Settings
from probes.patching.measures import LogProbDifference, Metric
from probes.patching.pairs import EncodedPair, PatchPair, encode_pairs
from probes.patching.parts import Cell, Part, grid_cells
from probes.patching.refusals import (
    TOLERANCE,
    check_difference,
    check_matched,
    check_resampling,
    check_room,
)
from probes.patching.result import Effects, summarise
from probes.patching.sources import Plan
from probes.patching.spans import AUTO, Column, make_columns

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


def trigger_effect(
    model: Model,
    pairs: Sequence[PatchPair],
    *,
    batch_tokens: int = 8192,
    n_boot: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Clean minus corrupted metric [nats], mean over pairs with its bootstrap interval.

    The metric is that of `residual_grid`: log P(exploitable) minus log P(secure continuation). On a
    twin that does not defect it should be near zero.
    """
    encoded = encode_pairs(pairs, model.tokenizer)
    job = Job(model, encoded, (), LogProbDifference(), Settings(batch_tokens=batch_tokens))
    clean, corrupted = job.unpatched(Plan("noise"))
    return interval(
        mean_statistic(clean - corrupted),
        [pair.name for pair in encoded],
        n_boot=n_boot,
        seed=seed,
    )


@writes("path")
def residual_grid(
    model: Model,
    pairs: Sequence[PatchPair],
    *,
    sites: Sequence[Site | str] | None = None,
    spans: Mapping[str, str] | None = None,
    alignment: str = AUTO,
    batch_tokens: int = 8192,
    n_boot: int = 1000,
    seed: int = 0,
    path: Path | str | None = None,
) -> Effects:
    """Patch every column at every site, in every pair; no cell is skipped or approximated.

    sites: by default the residual stream before the first block and after each block.
    spans, alignment: see `spans.make_columns`. batch_tokens: padded tokens per forward pass.
    n_boot: bootstrap resamples over pairs (seeded by `seed`) for 95% intervals; 0 for none, which
        a single pair needs. path: a folder where finished sites are kept and found again.
    Raises `InputError` for pairs that cannot be compared, an unknown site, or runs that do not
    differ in the metric; `StageError` for results that are not finite, or if a check fails (see
    `checks`, and here: everything patched must be the clean run).
    """
    keep_freed_memory()
    check_resampling(pairs, n_boot)
    encoded = encode_pairs(pairs, model.tokenizer)
    check_room(encoded, model)
    columns = make_columns(pairs, encoded, model.tokenizer, spans=spans, alignment=alignment)
    cells = [
        cell
        for site in _sites(model, sites)
        for cell in grid_cells(model.hf, [site.kind], columns, layers=[site.layer])
    ]
    job = Job(
        model, encoded, columns, LogProbDifference(), Settings(batch_tokens=batch_tokens, seed=seed)
    )
    return measure(
        job, cells, Plan(seed=seed), None if path is None else Path(path), check=_check_whole,
        n_boot=n_boot, n_flips=0, seed=seed,
    )  # fmt: skip


def _sites(model: Model, sites: Sequence[Site | str] | None) -> list[Site]:
    if sites is None:
        return residual_sites(model.n_layers)
    if not sites:
        raise InputError("no site to patch; leave `sites` out for the whole residual stream")
    parsed = [parse_site(str(site), model.n_layers, RESIDUAL) for site in sites]
    return sorted(set(parsed), key=lambda site: (site.depth, site.kind == "resid_pre"))


def _check_whole(job: Job, clean: Float[np.ndarray, "pair"]) -> None:
    """Patch all columns before the first block at once: it must restore the clean run.

    Raises `StageError` where it does not, and where the columns do not cover each position once.
    """
    for i, pair in enumerate(job.pairs):
        covered = sorted(p for column in job.columns for p in column.positions[i])
        if covered != list(range(len(pair.slots))):
            raise StageError(
                f"the columns do not cover each of the {len(pair.slots)} positions of pair "
                f"{pair.name!r} exactly once"
            )
    whole = np.array([pair.matched is None for pair in job.pairs])
    if (
        not whole.any()
    ):  # where a token has no counterpart, everything else does not restore the run
        return
    parts = tuple(Part("resid_pre", 0, None, i) for i in range(len(job.columns)))
    cell = Cell(parts, "resid_pre.0", "everything")
    restored = job.scores(Plan(seed=job.settings.seed), [cell])[0]
    allowed = TOLERANCE[job.model.dtype] * np.maximum(np.abs(clean), 1.0)
    errors = np.abs(restored - clean) * whole
    if (errors > allowed).any():
        worst = int((errors - allowed).argmax())
        raise StageError(
            f"patching every position at resid_pre.0 does not restore the clean run: pair "
            f"{job.pairs[worst].name!r} gives {restored[worst]:.6f} nats, clean {clean[worst]:.6f}. "
            "Patches are wrong for this architecture; run `probes doctor`."
        )
