"""`probes patch`: stage 6 on one checkpoint."""

from typing import Annotated

import typer

from probes.cli.arguments import ModelArgument, OutOption, PromptsOption, SeedOption, SitesOption


def patch(
    model: ModelArgument,
    prompts: PromptsOption,
    out: OutOption,
    site: SitesOption = None,
    n_pairs: Annotated[int, typer.Option(help="Pairs to patch, spread over the families.")] = 24,
    seed: SeedOption = 0,
) -> None:
    """Patch the triggered run into the untriggered one, layer by position, with intervals."""
    from probes.cli.show import show_table
    from probes.studies.verbs import patch as run

    grid = run(model, prompts, out, sites=site, n_pairs=n_pairs, seed=seed)
    show_table(grid.strongest(10))
    print(f"\n{grid!r}")
