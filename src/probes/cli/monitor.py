"""`probes monitor`: a saved probe watches every token, with a threshold from benign prompts."""

from pathlib import Path
from typing import Annotated

import typer

from probes.cli.arguments import ModelArgument, OutOption, PromptsOption
from probes.foundation.terminal import say


def monitor(
    model: ModelArgument,
    direction: Annotated[Path, typer.Option(help="A saved direction.")],
    prompts: PromptsOption,
    benign: Annotated[Path, typer.Option(help="Benign prompts, to set the threshold on.")],
    out: OutOption,
    aggregate: Annotated[str, typer.Option(help="max, mean or last, over the tokens.")] = "max",
    rate: Annotated[float, typer.Option(help="False alarms allowed on the benign prompts.")] = 0.01,
) -> None:
    """Score every token of prompts with a saved probe, and say which raise an alarm."""
    from probes.cli.show import show_table
    from probes.studies.monitor_verbs import WATCHED_TABLE
    from probes.studies.monitor_verbs import monitor as run

    ready, watched = run(
        model, direction, prompts, benign, out, aggregate=aggregate, false_positive_rate=rate
    )
    show_table(watched.rows.assign(prompt_id=watched.rows["prompt_id"].str[:12]))
    alarms = int(watched.rows["alarm"].sum())
    say(f"\n{alarms} of {len(watched)} raise an alarm (score above {ready.threshold:.4g})")
    say(f"Table: {out / WATCHED_TABLE}")
