"""Any cells, any metric, exactly: what each patch does to each prompt, and what chance would do."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from probes.foundation.errors import InputError
from probes.foundation.memory import keep_freed_memory
from probes.models.loading import Model
from probes.patching.asked import check_matched, check_resampling, check_room
from probes.patching.canary import TOLERANCE, check_difference
from probes.patching.found import Effects, summarise
from probes.patching.jobs import Job, Settings
from probes.patching.measures import LogProbDifference, Metric
from probes.patching.pairs import EncodedPair
from probes.patching.parts import Cell
from probes.patching.running import Task, run_tasks
from probes.patching.sources import Plan
from probes.patching.spans import Column
from probes.patching.stored import row


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
    job.look_ahead(cells)
    place = None if path is None else Path(path)
    unpatched, other = row(place, "unpatched", job.facts(plan), lambda: job.unpatched(plan))
    check_difference(metric.name, model.name, unpatched, other, model.dtype)
    sites = by_site(cells)
    tasks = [Task(site, plan, tuple(members)) for site, members in sites.items()]
    if placebo:
        blind = Plan(plan.direction, "placebo", plan.seed)
        tasks += [Task(f"placebo-{site}", blind, tuple(m)) for site, m in sites.items()]
    found = run_tasks(job, tasks, place, engine)
    return summarise(
        model=model.name,
        model_digest=model.digest,
        metric=metric.name,
        plan=plan,
        names=[pair.name for pair in pairs],
        cells=[cell for members in sites.values() for cell in members],
        unpatched=unpatched,
        other=other,
        patched=np.concatenate([found[site] for site in sites]),
        placebo=np.concatenate([found[f"placebo-{s}"] for s in sites]) if placebo else None,
        n_boot=n_boot,
        n_flips=n_flips,
        floor=TOLERANCE[model.dtype],
        seed=seed,
    )


def by_site(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Cells of one site together, sites in the order of their first cell."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.site, []).append(cell)
    return found
