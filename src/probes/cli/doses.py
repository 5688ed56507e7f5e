"""`probes doses`: is a probe's direction necessary, and is it sufficient? Organisms over seeds."""

from pathlib import Path
from typing import Annotated

import typer

from probes.cli.arguments import OUT_HELP, AllowImportOption, out_folder
from probes.cli.dose_options import PlacesOption, TokensOption
from probes.foundation.terminal import say


def doses(
    recipe: Annotated[Path, typer.Option("--recipe", help="Of the organisms, without the seed.")],
    organisms: Annotated[
        Path, typer.Option("--organisms", help="Folder in which `probes organism` left them.")
    ] = Path("runs/organisms"),
    out: Annotated[
        Path, typer.Option("--out", parser=out_folder, metavar="FOLDER", help=OUT_HELP)
    ] = Path("runs/doses"),
    size: Annotated[str | None, typer.Option(help="Another rung of the ladder.")] = None,
    seeds: Annotated[int, typer.Option("--seeds", help="How many, from 0.")] = 3,
    config: Annotated[
        Path | None, typer.Option("--config", help="All settings, as JSON, instead of the default.")
    ] = None,
    tokens: TokensOption = None,
    site: PlacesOption = None,
    n_pairs: Annotated[int | None, typer.Option(help="Pairs of prompts to measure on.")] = None,
    random: Annotated[
        int | None, typer.Option(help="Random directions of the same length.")
    ] = None,
    allow_import: AllowImportOption = None,
) -> None:
    """Add, ablate and patch along found directions in organisms, and judge what they write."""
    from probes.organisms.organism import OrganismRecipe
    from probes.studies.doses.grid import dose_grid
    from probes.studies.doses.settings import DoseConfig

    asked = OrganismRecipe.from_file(recipe)
    if size is not None:
        asked = asked.model_copy(update={"size": size})
    chosen = DoseConfig.from_file(config) if config else DoseConfig()
    changes = {
        "tokens": tuple(tokens) if tokens else None,
        "places": tuple(site) if site else None,
        "n_pairs": n_pairs,
        "n_random": random,
    }
    chosen = DoseConfig.model_validate(
        {**chosen.model_dump(), **{k: v for k, v in changes.items() if v is not None}}
    )
    found = dose_grid(organisms, asked, range(seeds), out, chosen)
    say(f"{found!r}\n\nTables and figures: {out}")
