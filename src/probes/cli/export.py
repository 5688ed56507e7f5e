"""`probes export`: the organisms of a run as small checkpoints to give away."""

from pathlib import Path
from typing import Annotated

import typer

from probes.cli.arguments import OutOption
from probes.foundation.terminal import say


def export(
    run: Annotated[Path, typer.Argument(help="A run folder of `probes study` or `probes train`.")],
    out: OutOption,
) -> None:
    """Write a run's organisms in half precision, with cards of their behaviour measured anew."""
    from probes.studies.export import export as ship

    say(ship(run, out))
