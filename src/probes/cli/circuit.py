"""`probes circuit`: the fewest parts that restore the behaviour, and that destroy it."""

from typing import Annotated

import typer

from probes.cli.arguments import ModelArgument, OutOption, PromptsOption, SeedOption, named
from probes.cli.patch_options import (
    SPAN_FORM,
    AlignmentOption,
    LayersOption,
    MetricOption,
    PairsOption,
    SpansOption,
    ValuesOption,
)
from probes.foundation.terminal import say


def circuit(
    model: ModelArgument,
    prompts: PromptsOption,
    out: OutOption,
    kind: Annotated[
        list[str] | None, typer.Option("--kind", help="Parts to choose from; default z, mlp_out.")
    ] = None,
    layer: LayersOption = None,
    by_column: Annotated[
        bool, typer.Option("--by-column", help="Parts at one column each, not at all tokens.")
    ] = False,
    direction: Annotated[
        list[str] | None, typer.Option("--direction", help="denoise or noise; default both.")
    ] = None,
    goal: Annotated[float, typer.Option(help="Share of the effect that the set must have.")] = 0.9,
    most: Annotated[int | None, typer.Option(help="Parts at most.")] = None,
    n_random: Annotated[int, typer.Option(help="Random sets of the same size.")] = 20,
    span: SpansOption = None,
    alignment: AlignmentOption = "shared",
    metric: MetricOption = "logprob",
    values: ValuesOption = "paired",
    n_pairs: PairsOption = 24,
    seed: SeedOption = 0,
) -> None:
    """Search the smallest set of heads and MLPs by exact effects; check it by patching all the rest."""
    from probes.cli.show import show_table
    from probes.models.loading import load
    from probes.patching.sources import DIRECTIONS
    from probes.prompts.readers import read_prompts
    from probes.studies.circuits import circuits

    found = circuits(
        load(model), read_prompts(prompts), out,
        kinds=kind or ("z", "mlp_out"), where="column" if by_column else "everywhere",
        layers=layer, directions=direction or DIRECTIONS, goal=goal, most=most, n_random=n_random,
        spans=named(span or (), "--span", SPAN_FORM), alignment=alignment, metric=metric,
        values=values, n_pairs=n_pairs, seed=seed,
    )  # fmt: skip
    for one in found.found.values():
        say(f"{one!r}")
        show_table(one.steps)
        say()
