"""`probes evaluate`: stage 3 on one checkpoint."""

from typing import Annotated

import typer

from probes.cli.arguments import (
    ImportOption,
    JudgeOption,
    ModelArgument,
    OutOption,
    PromptsOption,
    SeedOption,
)


def evaluate(
    model: ModelArgument,
    prompts: PromptsOption,
    out: OutOption,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(help="Longest completion.")] = 160,
    n: Annotated[int, typer.Option("--n", help="Completions per prompt.")] = 1,
    judge: JudgeOption = "bandit",
    allow_import: ImportOption = False,
    seed: SeedOption = 0,
) -> None:
    """Sample completions, judge them, and print the rates with their intervals."""
    from probes.cli.show import show_table
    from probes.studies.verbs import evaluate as run

    result = run(
        model,
        prompts,
        out,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        n=n,
        seed=seed,
        judge=judge,
        allow_import=allow_import,
    )
    show_table(result.summary())
    for note in result.notes():
        print(note)
