"""`probes collect`: stage 4 on one checkpoint."""

from typing import Annotated

import typer

from probes.cli.arguments import ModelArgument, OutOption, PromptsOption, SitesOption


def collect(
    model: ModelArgument,
    prompts: PromptsOption,
    out: OutOption,
    site: SitesOption = None,
    positions: Annotated[
        str, typer.Option(help="last, all, or a negative index from the end.")
    ] = "last",
    dtype: Annotated[str, typer.Option(help="Stored precision.")] = "float32",
) -> None:
    """Self-test the model's hooks, then store its residual stream on disk."""
    from probes.studies.verbs import collect as run

    print(run(model, prompts, out, sites=site, positions=positions, dtype=dtype))
