"""`probes attribute`: a patching grid estimated by gradients."""

from typing import Annotated

import typer

from probes.cli.arguments import ModelArgument, OutOption, PromptsOption, SeedOption, named
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


def attribute(
    model: ModelArgument,
    prompts: PromptsOption,
    out: OutOption,
    kind: Annotated[
        list[str],
        typer.Option(
            "--kind",
            help=f"{KIND_HELP}. Repeatable.",
        ),
    ],
    layer: LayersOption = None,
    heads: HeadsOption = False,
    everywhere: EverywhereOption = False,
    window: WindowOption = 1,
    integrated: Annotated[
        int, typer.Option(help="Points of integrated gradients; 0 for one gradient.")
    ] = 0,
    along: Annotated[
        str, typer.Option(help="Integrate along each site, or the inputs for all at once.")
    ] = "site",
    exact: Annotated[
        bool, typer.Option("--exact", help="Patch the grid as well and say how well they agree.")
    ] = False,
    span: SpansOption = None,
    alignment: AlignmentOption = "shared",
    metric: MetricOption = "logprob",
    direction: DirectionOption = "denoise",
    values: ValuesOption = "paired",
    n_pairs: PairsOption = 24,
    seed: SeedOption = 0,
) -> None:
    """Estimate what patching each cell would do, from one gradient; --exact says how far to trust it."""
    from probes.cli.show import show_table
    from probes.models.loading import load
    from probes.prompts.readers import read_prompts
    from probes.studies.attributed import attribute as run

    found = run(
        load(model), read_prompts(prompts), out,
        kinds=kind, where="everywhere" if everywhere else "column", heads=heads, layers=layer,
        window=window, spans=named(span or (), "--span", SPAN_FORM), alignment=alignment,
        metric=metric, direction=direction, values=values, n_steps=integrated, along=along,
        exact=exact, n_pairs=n_pairs, seed=seed,
    )  # fmt: skip
    show_table(found.effects.strongest(10))
    say(f"\n{found.effects!r}")
    if found.agreement is not None:
        say(f"{found.agreement!r}")
