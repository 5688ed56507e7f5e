"""`probes patch`: exact patching grids on one checkpoint."""

from typing import Annotated

import typer

from probes.cli.arguments import (
    ModelArgument,
    OutOption,
    PromptsOption,
    SeedOption,
    SitesOption,
    named,
    refuse_unused,
)
from probes.cli.patch_options import (
    KIND_HELP,
    SPAN_FORM,
    AlignmentOption,
    DirectionOption,
    EverywhereOption,
    HeadsOption,
    LayersOption,
    MetricOption,
    PairsOption,
    SpansOption,
    ValuesOption,
    WindowOption,
)
from probes.foundation.terminal import say

WITH_WRITE = ("samples", "temperature", "max_new_tokens")
WITH_KIND = (
    "layer", "heads", "everywhere", "window", "span", "alignment", "align", "metric", "direction",
    "values", "placebo", "write", "engine",
)  # fmt: skip


def patch(
    context: typer.Context,
    model: ModelArgument,
    prompts: PromptsOption,
    out: OutOption,
    site: SitesOption = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            help=f"{KIND_HELP}, in every layer: a table with intervals and corrected p. Repeatable.",
        ),
    ] = None,
    layer: LayersOption = None,
    heads: HeadsOption = False,
    everywhere: EverywhereOption = False,
    window: WindowOption = 1,
    span: SpansOption = None,
    alignment: AlignmentOption = "shared",
    align: Annotated[
        str, typer.Option(help="position, or tokens: for versions of unequal token length.")
    ] = "position",
    metric: MetricOption = "logprob",
    direction: DirectionOption = "denoise",
    values: ValuesOption = "paired",
    placebo: Annotated[
        bool, typer.Option("--placebo", help="The grid again with values of mismatched pairs.")
    ] = False,
    n_pairs: PairsOption = 24,
    write: Annotated[
        int,
        typer.Option(help="So many of the strongest cells: what is written with them, judged."),
    ] = 0,
    samples: Annotated[int, typer.Option(help="Texts per pair and cell with --write.")] = 4,
    temperature: Annotated[float, typer.Option(help="With --write; 0 is greedy.")] = 0.7,
    max_new_tokens: Annotated[int, typer.Option(help="Per text, with --write.")] = 160,
    engine: Annotated[str, typer.Option(help="process, or ray: one site per task.")] = "process",
    seed: SeedOption = 0,
) -> None:
    """Patch the triggered run into the untriggered one, or the reverse, cell by cell."""
    from probes.cli.show import show_table

    if not write:
        refuse_unused(context, "--write", *WITH_WRITE)
    if kind is None:
        refuse_unused(context, "--kind", *WITH_KIND)
        from probes.studies.verbs import patch as run

        grid = run(model, prompts, out, sites=site, n_pairs=n_pairs, seed=seed)
        show_table(grid.strongest(10))
        say(f"\n{grid!r}")
        return
    if site:
        from probes.foundation.errors import InputError

        raise InputError("give --kind, with --layer for some layers only, or --site; not both")
    from probes.models.loading import load
    from probes.prompts.readers import read_prompts
    from probes.studies.patched import patch_effects

    found = patch_effects(
        load(model),
        read_prompts(prompts),
        out,
        kinds=kind,
        where="everywhere" if everywhere else "column",
        heads=heads,
        layers=layer,
        window=window,
        spans=named(span or (), "--span", SPAN_FORM),
        alignment=alignment,
        align=align,
        metric=metric,
        direction=direction,
        values=values,
        placebo=placebo,
        n_pairs=n_pairs,
        engine=engine,
        n_write=write,
        n_samples=samples,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        seed=seed,
    )
    show_table(found.strongest(10))
    if found.written is not None:
        say("\nwritten with the strongest of them patched:")
        show_table(found.written.rows)
    say(f"\n{found!r}")
