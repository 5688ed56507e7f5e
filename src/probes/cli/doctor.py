"""`probes doctor`: can this model be read truthfully?"""

import typer

from probes.cli.arguments import ModelArgument
from probes.foundation.terminal import say


def doctor(model: ModelArgument) -> None:
    """Check that hooks equal the plain forward pass and that padding changes nothing."""
    from probes.cli.show import show_table
    from probes.studies.verbs import doctor as run

    result = run(model)
    show_table(result.rows)
    if result.note:
        say(f"\n{result.note}")
    say(f"\n{'passed' if result.passed else 'FAILED'}")
    if not result.passed:
        raise typer.Exit(1)
