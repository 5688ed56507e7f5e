"""Options that the patching verbs share: which tokens, which layers, which pairs and what is measured."""

from typing import Annotated

import typer

LayersOption = Annotated[
    list[int] | None, typer.Option("--layer", help="Only these layers. Repeatable.")
]
SpansOption = Annotated[
    list[str] | None,
    typer.Option("--span", help="NAME=REGEX: where a named column begins. Repeatable."),
]
AlignmentOption = Annotated[str, typer.Option(help="Columns: shared or position.")]
MetricOption = Annotated[str, typer.Option(help="logprob, kl or kl-continuation.")]
DirectionOption = Annotated[str, typer.Option(help="denoise or noise.")]
ValuesOption = Annotated[str, typer.Option(help="paired, mean, zero, resampled or placebo.")]
PairsOption = Annotated[
    int, typer.Option("--n-pairs", help="Pairs to use, spread over the families.")
]
KIND_HELP = "resid_pre, q, k, v, pattern, z, attn_out, resid_mid, mlp_out or resid_post"
HeadsOption = Annotated[bool, typer.Option("--heads", help="One cell per head.")]
EverywhereOption = Annotated[
    bool, typer.Option("--everywhere", help="All tokens at once, no columns.")
]
WindowOption = Annotated[int, typer.Option("--window", help="Adjacent layers patched together.")]
SPAN_FORM = "NAME=REGEX, for instance task=Task:"
