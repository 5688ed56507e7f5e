"""Attribution as a stage: prompts in, estimated effects out, and on demand how far they can be trusted."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from probes.foundation.outputs import writes
from probes.foundation.tables import write_table
from probes.models.loading import Model
from probes.patching.agreement import Agreement, compare
from probes.patching.attribution import Attributions, attribute_cells
from probes.patching.exact import patch_cells
from probes.patching.jobs import Settings
from probes.patching.measures import metric_named
from probes.patching.sources import Plan
from probes.plotting.heatmap import patch_heatmap
from probes.plotting.style import PAGE, figure, save, style
from probes.prompts.records import Prompt
from probes.studies.ready_pairs import facts, ready_pairs


@dataclasses.dataclass(frozen=True, eq=False)
class Attributed:
    """Estimated effects, and the agreement with the exact ones where those were computed too."""

    effects: Attributions
    agreement: Agreement | None

    def _repr_html_(self) -> str:
        exact = "" if self.agreement is None else self.agreement._repr_html_()
        return self.effects._repr_html_() + exact


@writes("out", "attribution")
def attribute(
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
    metric: str = "logprob",
    direction: str = "denoise",
    values: str = "paired",
    n_steps: int = 0,
    along: str = "site",
    exact: bool = False,
    n_pairs: int = 24,
    n_boot: int = 1000,
    n_flips: int = 2000,
    seed: int = 0,
) -> Attributed:
    """Estimate a grid of any sites on pairs with reference continuations; exact: patch it as well.

    out: a folder for `cells.csv`, `per_prompt.csv`, the figure `heatmap` where cells have columns, and
    `agreement.csv` with exact. The rest is as in `patch_effects` and `attribute_cells`.
    """
    measure = metric_named(metric)
    ready = ready_pairs(
        model, prompts, n_pairs=n_pairs, spans=spans, alignment=alignment, seed=seed
    )
    cells = ready.cells(model, kinds, where, layers=layers, heads=heads, window=window)
    given: dict[str, Any] = {
        "metric": measure, "plan": Plan(direction, values, seed), "n_boot": n_boot,
        "n_flips": n_flips, "settings": Settings(seed=seed), "seed": seed,
    }  # fmt: skip
    found = attribute_cells(
        model, ready.encoded, cells, ready.columns, n_steps=n_steps, along=along, **given
    )
    agreement = None
    if exact:
        path = None if out is None else Path(out) / "sites"
        agreement = compare(
            patch_cells(model, ready.encoded, cells, ready.columns, path=path, **given), found,
            seed=seed,
        )  # fmt: skip
    if out is not None:
        said = facts(
            model, metric=found.metric, direction=direction, values=values, n_steps=n_steps,
            along=along, seed=seed,
        )  # fmt: skip
        write_table(Path(out) / "cells.csv", found.rows, **said)
        write_table(Path(out) / "per_prompt.csv", found.per_prompt, **said)
        if agreement is not None:
            said |= {"spearman": agreement.spearman, "low": agreement.low, "high": agreement.high}
            write_table(Path(out) / "agreement.csv", agreement.rows, **said)
        if where == "column" and not heads:
            with style():
                picture = figure(PAGE, 0.6 + 0.22 * len(set(found.rows["site"])))
                save(picture, Path(out) / "heatmap", patch_heatmap(picture.subplots(), found.rows))
    return Attributed(found, agreement)
