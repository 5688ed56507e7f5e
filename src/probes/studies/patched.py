"""Patching as a stage: prompts in, a table of cells with intervals, corrected p and a placebo out."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from probes.foundation.tables import write_table
from probes.models.loading import Model
from probes.patching.exact import patch_cells
from probes.patching.found import Effects
from probes.patching.jobs import Settings
from probes.patching.measures import Metric, metric_named
from probes.patching.sources import Plan
from probes.prompts.records import Prompt
from probes.studies.ready_pairs import facts, ready_pairs

ROWS, PER_PROMPT = "cells.csv", "per_prompt.csv"


def patch_effects(
    model: Model,
    prompts: Sequence[Prompt],
    out: Path | str | None = None,
    *,
    kinds: Sequence[str] = ("resid_pre",),
    where: str = "column",
    heads: bool = False,
    layers: Sequence[int] | None = None,
    window: int = 1,
    spans: Mapping[str, str] | None = None,
    alignment: str = "shared",
    align: str = "position",
    metric: Metric | str = "logprob",
    direction: str = "denoise",
    values: str = "paired",
    placebo: bool = False,
    n_pairs: int = 24,
    n_boot: int = 1000,
    n_flips: int = 2000,
    engine: str = "process",
    settings: Settings | None = None,
    seed: int = 0,
) -> Effects:
    """Patch a grid of any sites on pairs that carry reference continuations (`safe`, `defect`).

    where: "column" for one cell per column (see `spans.make_columns` for spans and alignment), or
    "everywhere" for every token at once. metric: one of `METRICS`, or your own. out: a folder for
    `cells.csv` and `per_prompt.csv` with provenance, and for finished sites, which are found again.
    align: "tokens" where the two versions of a prompt differ in length; see `encode_pairs`.
    The rest is as in `patch_cells`, `grid_cells` and `Plan`.
    """
    measure = metric_named(metric)
    ready = ready_pairs(
        model, prompts, n_pairs=n_pairs, spans=spans, alignment=alignment, align=align, seed=seed
    )
    cells = ready.cells(model, kinds, where, layers=layers, heads=heads, window=window)
    found = patch_cells(
        model, ready.encoded, cells, ready.columns,
        metric=measure, plan=Plan(direction, values, seed), placebo=placebo, n_boot=n_boot,
        n_flips=n_flips, settings=settings or Settings(seed=seed), seed=seed,
        path=None if out is None else Path(out) / "sites", engine=engine,
    )  # fmt: skip
    if out is not None:
        said = facts(model, metric=found.metric, direction=direction, values=values, seed=seed)
        write_table(Path(out) / ROWS, found.rows, **said)
        write_table(Path(out) / PER_PROMPT, found.per_prompt, **said)
    return found
