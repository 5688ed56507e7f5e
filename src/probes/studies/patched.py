"""Patching as a stage: prompts in, a table of cells with intervals, corrected p and a placebo out."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from probes.foundation.errors import InputError, unknown
from probes.foundation.tables import write_table
from probes.models.loading import Model
from probes.patching.exact import patch_cells
from probes.patching.found import Effects
from probes.patching.jobs import Settings
from probes.patching.measures import Divergence, LogProbDifference, Metric
from probes.patching.pairs import encode_pairs, make_pairs
from probes.patching.parts import grid_cells
from probes.patching.sources import Plan
from probes.patching.spans import make_columns
from probes.prompts.records import Prompt
from probes.studies.pairs import spread
from probes.studies.settings import PatchConfig

METRICS: dict[str, Metric] = {
    "logprob": LogProbDifference(),
    "kl": Divergence(),
    "kl-continuation": Divergence(continuation=True),
}
WHERE = ("column", "everywhere")
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
    if isinstance(metric, str):
        if metric not in METRICS:
            raise unknown("metric", metric, METRICS)
        metric = METRICS[metric]
    if where not in WHERE:
        raise unknown("place to patch", where, WHERE)
    able = [prompt for prompt in prompts if prompt.defect is not None]
    if not able:
        raise InputError(
            "no prompt has reference continuations: add `safe` and `defect` to the lines of the file"
        )
    config = PatchConfig(n_pairs=n_pairs, n_boot=n_boot, seed=seed)
    pairs = spread(make_pairs(able), config)
    encoded = encode_pairs(pairs, model.tokenizer, align=align)
    columns = make_columns(pairs, encoded, model.tokenizer, spans=spans, alignment=alignment)
    cells = grid_cells(
        model.hf, kinds, columns if where == "column" else None,
        layers=layers, heads=heads, window=window,
    )  # fmt: skip
    found = patch_cells(
        model, encoded, cells, columns,
        metric=metric, plan=Plan(direction, values, seed), placebo=placebo, n_boot=n_boot,
        n_flips=n_flips, settings=settings or Settings(seed=seed), seed=seed,
        path=None if out is None else Path(out) / "sites", engine=engine,
    )  # fmt: skip
    if out is not None:
        facts = {
            "model": model.name, "weights": model.weights_digest, "metric": found.metric,
            "direction": direction, "values": values, "seed": seed,
        }  # fmt: skip
        write_table(Path(out) / ROWS, found.rows, **facts)
        write_table(Path(out) / PER_PROMPT, found.per_prompt, **facts)
    return found
