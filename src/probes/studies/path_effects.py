"""Path patching as a stage: prompts in, a table of who tells whom out."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from probes.foundation.outputs import writes
from probes.foundation.tables import write_table
from probes.models.loading import Model
from probes.patching.jobs import Settings
from probes.patching.measures import metric_named
from probes.patching.path_tables import Paths
from probes.patching.paths import patch_paths, readers_of
from probes.patching.sources import Plan
from probes.prompts.records import Prompt
from probes.studies.ready_pairs import facts, ready_pairs


@writes("out", "paths")
def path_effects(
    model: Model,
    prompts: Sequence[Prompt],
    out: Path | str | None = None,
    *,
    senders: Sequence[str] = ("z", "mlp_out"),
    readers: Sequence[str] = ("attn_in", "mlp_in", "logits"),
    where: str = "everywhere",
    heads: bool = True,
    layers: Sequence[int] | None = None,
    reader_layers: Sequence[int] | None = None,
    through_mlps: bool = False,
    spans: Mapping[str, str] | None = None,
    alignment: str = "shared",
    metric: str = "logprob",
    direction: str = "denoise",
    values: str = "paired",
    n_pairs: int = 24,
    n_boot: int = 1000,
    n_flips: int = 2000,
    seed: int = 0,
) -> Paths:
    """Every path from parts of these kinds to readers of these kinds, on pairs with continuations.

    senders, readers: kinds, see `patching.paths`. where: "everywhere" for what a sender writes at all
    tokens, "column" for one sender per column. heads: senders and readers that have heads one by one.
    layers, reader_layers: only these. out: a folder for `paths.csv` and `per_prompt.csv`.
    """
    measure = metric_named(metric)
    ready = ready_pairs(
        model, prompts, n_pairs=n_pairs, spans=spans, alignment=alignment, seed=seed
    )
    cells = [
        cell
        for kind in senders
        for cell in ready.cells(model, [kind], where, layers=layers, heads=heads and kind == "z")
    ]
    found = patch_paths(
        model, ready.encoded, cells,
        readers_of(model.hf, readers, layers=reader_layers, heads=heads), ready.columns,
        metric=measure, plan=Plan(direction, values, seed), through_mlps=through_mlps,
        n_boot=n_boot, n_flips=n_flips, settings=Settings(seed=seed), seed=seed,
    )  # fmt: skip
    if out is not None:
        said = facts(
            model, metric=found.metric, direction=direction, values=values,
            through_mlps=through_mlps, seed=seed,
        )  # fmt: skip
        write_table(Path(out) / "paths.csv", found.rows, **said)
        write_table(Path(out) / "per_prompt.csv", found.per_prompt, **said)
    return found
