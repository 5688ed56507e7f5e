"""`probes generic`: defection probes fitted on questions that show no trigger and no defection."""

from pathlib import Path
from typing import Annotated

import typer

from probes.cli.arguments import ModelArgument, OutOption, PromptsOption, SeedOption
from probes.foundation.terminal import say


def generic(
    model: ModelArgument,
    prompts: PromptsOption,
    behaviour: Annotated[Path, typer.Option(help="What `probes evaluate` wrote for them.")],
    out: OutOption,
    contrasts: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="helpful, relevant, obvious_truth, ambiguous, code_review. Repeatable."
        ),
    ] = None,
    random: Annotated[int, typer.Option(help="Random directions to compare with.")] = 1000,
    seed: SeedOption = 0,
) -> None:
    """Fit generic defection probes, and compare with random directions and asking the model."""
    from probes.cli.show import show_table
    from probes.prompts.contrasts import NAMES
    from probes.studies.monitor_verbs import GENERIC_TABLE
    from probes.studies.monitor_verbs import generic as run

    found = run(model, prompts, behaviour, out, sets=contrasts or NAMES, n_random=random, seed=seed)
    show_table(found.best())
    if found.note:
        say(f"\n{found.note}")
    say(f"\nTable: {out / GENERIC_TABLE}")
