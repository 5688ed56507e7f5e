"""Options of grids of trained organisms: where their settings come from, and what computes the cells."""

from pathlib import Path
from typing import Annotated

import typer

PresetOption = Annotated[str, typer.Option("--preset", help="default, or tiny for a first try.")]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="All settings, as JSON, instead of a preset.")
]
SeedsOption = Annotated[int | None, typer.Option("--seeds", help="How many, from 0.")]
EngineOption = Annotated[
    str, typer.Option("--engine", help="process, or ray: RAY_ADDRESS or this machine.")
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", help="With ray: cells side by side.")
]
ThreadsOption = Annotated[
    int, typer.Option("--threads", help="Of torch, per cell; they decide rounding.")
]
CpusOption = Annotated[
    float | None, typer.Option("--cpus", help="With ray: CPUs per cell; default as threads.")
]
RetriesOption = Annotated[
    int, typer.Option("--retries", help="With ray: tries more after a killed worker.")
]
