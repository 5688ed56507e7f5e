"""`probes paths`: which part of the model tells which."""

from typing import Annotated

import typer

from probes.cli.arguments import ModelArgument, OutOption, PromptsOption, SeedOption, named
from probes.cli.patch_options import (
    SPAN_FORM,
    AlignmentOption,
    DirectionOption,
    LayersOption,
    MetricOption,
    PairsOption,
    SpansOption,
    ValuesOption,
)
from probes.foundation.terminal import say


def paths(
    model: ModelArgument,
    prompts: PromptsOption,
    out: OutOption,
    sender: Annotated[
        list[str] | None,
        typer.Option(
            "--from", help="z, mlp_out, attn_out, resid_pre or resid_post; default z, mlp_out."
        ),
    ] = None,
    reader: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            help="q, k, v, head_in, attn_in, mlp_in or logits; default attn_in, mlp_in, logits.",
        ),
    ] = None,
    layer: LayersOption = None,
    reader_layer: Annotated[
        list[int] | None, typer.Option("--to-layer", help="Only readers there. Repeatable.")
    ] = None,
    by_column: Annotated[
        bool, typer.Option("--by-column", help="One sender per column, not all tokens at once.")
    ] = False,
    through_mlps: Annotated[
        bool, typer.Option("--through-mlps", help="Let MLPs in between answer to the change.")
    ] = False,
    span: SpansOption = None,
    alignment: AlignmentOption = "shared",
    metric: MetricOption = "logprob",
    direction: DirectionOption = "denoise",
    values: ValuesOption = "paired",
    n_pairs: PairsOption = 24,
    seed: SeedOption = 0,
) -> None:
    """Carry the change of one part to one reader, with all else held, and see what it does."""
    from probes.cli.show import show_table
    from probes.models.loading import load
    from probes.prompts.readers import read_prompts
    from probes.studies.path_effects import path_effects

    found = path_effects(
        load(model), read_prompts(prompts), out,
        senders=sender or ("z", "mlp_out"), readers=reader or ("attn_in", "mlp_in", "logits"),
        where="column" if by_column else "everywhere", layers=layer, reader_layers=reader_layer,
        through_mlps=through_mlps, spans=named(span or (), "--span", SPAN_FORM),
        alignment=alignment, metric=metric, direction=direction, values=values, n_pairs=n_pairs,
        seed=seed,
    )  # fmt: skip
    show_table(found.strongest(10))
    say(f"\n{found!r}")
