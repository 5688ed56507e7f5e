"""`probes steer`: doses of a saved direction, or of all that are fitted here, in a model of one's own."""

from pathlib import Path
from typing import Annotated

import typer

from probes.cli.arguments import ModelArgument, OutOption, PromptsOption, SeedOption
from probes.cli.dose_options import PlacesOption, TokensOption
from probes.foundation.terminal import say


def steer(
    model: ModelArgument,
    prompts: PromptsOption,
    out: OutOption,
    direction: Annotated[
        Path | None,
        typer.Option("--direction", help="A saved direction; without it all kinds are fitted."),
    ] = None,
    mode: Annotated[
        list[str] | None,
        typer.Option(
            "--mode", help="add, ablate, along_to_safe, along_to_defect; default all. Repeatable."
        ),
    ] = None,
    dose: Annotated[
        list[float] | None,
        typer.Option(
            "--dose",
            help="add: distances between the class means; ablate, along: share of the way. Repeatable.",
        ),
    ] = None,
    tokens: TokensOption = None,
    site: PlacesOption = None,
    random: Annotated[int, typer.Option(help="Random directions of the same length.")] = 3,
    n_pairs: Annotated[int, typer.Option(help="Pairs of prompts to measure on.")] = 64,
    max_new_tokens: Annotated[int, typer.Option(help="Per completion.")] = 160,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.7,
    allow_other: Annotated[
        bool, typer.Option("--allow-other", help="A direction of another model, on purpose.")
    ] = False,
    seed: SeedOption = 0,
) -> None:
    """Does a direction cause defection? Judged with and without the trigger, dose by dose."""
    from probes.foundation.errors import InputError
    from probes.studies.doses.own import dose_curves_of
    from probes.studies.doses.settings import MODES, DoseConfig

    changes: dict[str, object] = {"n_random": random, "n_pairs": n_pairs, "seed": seed}
    if direction is not None and site:
        raise InputError("a saved direction is measured at its own site: leave --site out")
    modes = tuple(mode or MODES)
    if dose:
        changes |= {name.split("_")[0]: tuple(dose) for name in modes}
    if tokens:
        changes["tokens"] = tuple(tokens)
    if site:
        changes["places"] = tuple(site)
    for name in modes:
        DoseConfig().doses(name)
    found = dose_curves_of(
        model, prompts, out, direction=direction, modes=modes,
        config=DoseConfig.model_validate(changes), max_new_tokens=max_new_tokens,
        temperature=temperature, allow_other=allow_other,
    )  # fmt: skip
    say(f"{found!r}\n\nTables and figures: {out}")
