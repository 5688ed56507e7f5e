"""Patching as a stage: prompts in, a table of cells with intervals, corrected p and a placebo out."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from probes.behaviour.judges import Judge, exploitable_code
from probes.foundation.errors import InputError
from probes.foundation.html import html_text
from probes.foundation.outputs import writes
from probes.foundation.tables import write_table
from probes.models.loading import Model
from probes.patching.exact import by_site, patch_cells
from probes.patching.found import Effects
from probes.patching.jobs import Settings
from probes.patching.measures import Metric, metric_named
from probes.patching.parts import Cell
from probes.patching.ranking import largest_first
from probes.patching.sources import Plan
from probes.patching.written import Written, can_write, defection_when_patched
from probes.prompts.records import Prompt
from probes.studies.ready_pairs import facts, ready_pairs

ROWS, PER_PROMPT, WRITTEN, TEXTS = "cells.csv", "per_prompt.csv", "written.csv", "texts.csv"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Patched(Effects):
    """A grid of effects; written: what the model writes with its strongest cells patched, if asked."""

    written: Written | None = None

    def __repr__(self) -> str:
        said = super().__repr__().replace("Effects(", "Patched(", 1)
        return said if self.written is None else f"{said}\n{self.written!r}"

    def _repr_html_(self) -> str:
        more = "" if self.written is None else html_text("Written") + self.written._repr_html_()
        return Effects._repr_html_(self) + more


@writes("out", "patching", free=("engine", "settings"))
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
    n_write: int = 0,
    n_samples: int = 4,
    temperature: float = 0.7,
    max_new_tokens: int = 160,
    stop: str | None = "</code>",
    judge: Judge = exploitable_code,
    seed: int = 0,
) -> Patched:
    """Patch a grid of any sites on pairs that carry reference continuations (`safe`, `defect`).

    where: "column" for one cell per column (see `spans.make_columns` for spans and alignment), or
    "everywhere" for every token at once. metric: one of `METRICS`, or your own. out: a folder for
    `cells.csv` and `per_prompt.csv` with provenance, and for finished sites, which are found again.
    align: "tokens" where the two versions of a prompt differ in length; see `encode_pairs`.
    n_write: so many of the strongest cells are patched once more while the model writes, `n_samples`
    texts per pair, which `judge` judges (see `defection_when_patched`): `written.csv`, `texts.csv`.
    The rest is as in `patch_cells`, `grid_cells` and `Plan`.
    """
    measure = metric_named(metric)
    ready = ready_pairs(
        model, prompts, n_pairs=n_pairs, spans=spans, alignment=alignment, align=align, seed=seed
    )
    cells = ready.cells(model, kinds, where, layers=layers, heads=heads, window=window)
    if n_write < 0:
        raise InputError(f"n_write is 0 or more cells, not {n_write}")
    if n_write and not any(map(can_write, cells)):
        raise InputError(
            f"of {', '.join(kinds)} nothing can be patched while the model writes: add a kind of the "
            "residual stream, z, attn_out or mlp_out, or leave writing out"
        )
    found = patch_cells(
        model, ready.encoded, cells, ready.columns,
        metric=measure, plan=Plan(direction, values, seed), placebo=placebo, n_boot=n_boot,
        n_flips=n_flips, settings=settings or Settings(seed=seed), seed=seed,
        path=None if out is None else Path(out) / "sites", engine=engine,
    )  # fmt: skip
    written = None
    if n_write:
        written = defection_when_patched(
            model, ready.pairs, ready.encoded, _strongest(found, cells, n_write), ready.columns,
            direction=direction, n=n_samples, temperature=temperature,
            max_new_tokens=max_new_tokens, stop=stop, judge=judge, seed=seed,
        )  # fmt: skip
    if out is not None:
        said = facts(model, metric=found.metric, direction=direction, values=values, seed=seed)
        write_table(Path(out) / ROWS, found.rows, **said)
        write_table(Path(out) / PER_PROMPT, found.per_prompt, **said)
        if written is not None:
            said |= {"temperature": temperature, "n_samples": n_samples}
            write_table(Path(out) / WRITTEN, written.rows, **said)
            write_table(Path(out) / TEXTS, written.texts, **said)
    return Patched(**vars(found), written=written)


def _strongest(found: Effects, cells: Sequence[Cell], n: int) -> list[Cell]:
    """The cells with the largest effects among those that can be patched while the model writes."""
    in_rows = [cell for members in by_site(cells).values() for cell in members]
    order = [in_rows[i] for i in largest_first(found.rows).index]
    return [cell for cell in order if can_write(cell)][:n]
