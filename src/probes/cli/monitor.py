"""`probes monitor`: a saved probe watches every token, with a threshold from benign prompts."""

from pathlib import Path
from typing import Annotated

import typer

from probes.cli.arguments import KeepSinksOption, ModelArgument, OutOption
from probes.foundation.terminal import say

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
    from probes.cli.show import show_table
    from probes.studies.monitor_verbs import WATCHED_TABLE
    from probes.studies.monitor_verbs import monitor as run

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
