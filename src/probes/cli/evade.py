"""`probes evade`: organisms trained to evade a probe, and what still catches them."""

from pathlib import Path
from typing import Annotated

import typer

from probes.cli.arguments import OUT_HELP, AllowImportOption, out_folder
from probes.foundation.terminal import say


def evade(
    recipe: Annotated[Path, typer.Argument(help="A recipe of `probes organism`.")],
    out: Annotated[
        Path, typer.Option("--out", parser=out_folder, metavar="FOLDER", help=OUT_HELP)
    ] = Path("runs/evasion"),
    size: Annotated[str | None, typer.Option(help="Another rung of the ladder.")] = None,
    penalty: Annotated[
        list[float] | None,
        typer.Option("--penalty", help="Cost of a nat that the probe tells. Repeatable."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many, from 0.")] = 3,
    against: Annotated[
        list[str] | None,
        typer.Option("--against", help="Estimator to evade, mean_difference. Repeatable."),
    ] = None,
    everywhere: Annotated[
        bool, typer.Option("--everywhere", help="Evade it at all sites, not at the chosen one.")
    ] = False,
    organisms: Annotated[
        Path | None,
        typer.Option("--organisms", help="Folder with organisms of this recipe to be taken."),
    ] = None,
    examine: Annotated[
        Path | None,
        typer.Option("--examine", help="Prompts, detectors and resamples, as JSON."),
    ] = None,
    allow_import: AllowImportOption = None,
) -> None:
    """Train organisms that hide from a probe; detection by it, refitted, and by every other detector."""
    from probes.cli.show import show_table
    from probes.organisms.organism import OrganismRecipe
    from probes.studies.evasion.evasion import READING, evasion
    from probes.studies.evasion.running import FIGURES, TABLES
    from probes.studies.evasion.settings import PENALTIES, EvasionConfig, ExamineConfig

    asked = OrganismRecipe.from_file(recipe)
    if size is not None:
        asked = asked.model_copy(update={"size": size})
    config = EvasionConfig(
        recipe=asked,
        penalties=tuple(penalty or PENALTIES),
        seeds=seeds,
        against=tuple(against or ("mean_difference",)),
        everywhere=everywhere,
        examine=ExamineConfig.from_file(examine) if examine else ExamineConfig(),
    )
    found = evasion(config, out, organisms=organisms)
    show_table(found.summary().reset_index())
    say(f"\n{found.reading}\n\nTables: {out / TABLES} ({READING})\nFigures: {out / FIGURES}")
