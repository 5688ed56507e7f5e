"""`probes persistence`: does the backdoor survive safety training? The whole grid, resumable."""

from pathlib import Path
from typing import Annotated

import typer


def persistence(
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Grid folder; continued if unfinished. Default runs/persistence."
        ),
    ] = None,
    preset: Annotated[str, typer.Option(help="default, or tiny for a first try.")] = "default",
    config: Annotated[
        Path | None, typer.Option("--config", help="All settings, as JSON, instead of a preset.")
    ] = None,
    behaviour: Annotated[
        list[str] | None,
        typer.Option("--behaviour", help="hate, code, ... or module:attribute. Repeatable."),
    ] = None,
    trigger: Annotated[
        list[str] | None,
        typer.Option("--trigger", help="Default: each behaviour's own. Repeatable."),
    ] = None,
    mechanism: Annotated[
        list[str] | None, typer.Option("--mechanism", help="normal, cot, distilled. Repeatable.")
    ] = None,
    size: Annotated[
        list[str] | None, typer.Option("--size", help="Rungs, such as 0.2M, 1M. Repeatable.")
    ] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", help="How many, from 0.")] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(
            "--stage",
            help="sft_pre, sft_post, rl, adversarial; rl+adversarial is the one after the other. Repeatable.",
        ),
    ] = None,
    reversal: Annotated[bool, typer.Option(help="After each stage: what brings it back?")] = True,
    figures: Annotated[bool, typer.Option(help="Draw them from the tables.")] = True,
    engine: Annotated[str, typer.Option(help="process, or ray: RAY_ADDRESS or this machine.")] = (
        "process"
    ),
    workers: Annotated[
        int | None, typer.Option("--workers", help="With ray: cells side by side.")
    ] = None,
    threads: Annotated[int, typer.Option(help="Of torch, per cell; they decide rounding.")] = 1,
    cpus: Annotated[
        float | None, typer.Option("--cpus", help="With ray: CPUs per cell; default as threads.")
    ] = None,
    gpus: Annotated[float, typer.Option(help="With ray: GPUs per cell; may be a fraction.")] = 0.0,
    retries: Annotated[int, typer.Option(help="With ray: tries more after a killed worker.")] = 3,
    log_to: Annotated[
        list[str] | None,
        typer.Option("--log-to", help="tensorboard or wandb, besides the JSONL. Repeatable."),
    ] = None,
) -> None:
    """Organisms, safety training, and whether the backdoor survives it: the whole grid, resumable.

    Ends with status 1 if a cell has no result; the table of cells says why.
    """
    from probes.cli.show import show_table
    from probes.studies.persistence.findings import as_text
    from probes.studies.persistence.grid import FIGURES, TABLES
    from probes.studies.persistence.grid import persistence as run
    from probes.studies.persistence.running import EngineConfig
    from probes.studies.persistence.settings import (
        PersistenceConfig,
        persistence_config,
        with_axes,
    )

    chosen = PersistenceConfig.from_file(config) if config else persistence_config(preset)
    chosen = with_axes(
        chosen,
        behaviours=behaviour,
        triggers=trigger,
        mechanisms=mechanism,
        sizes=size,
        n_seeds=seeds,
        stages=stage,
        reversal=reversal,
    )
    place = out or Path("runs") / (
        "persistence" if preset == "default" else f"persistence-{preset}"
    )
    grid = run(
        chosen,
        place,
        draw=figures,
        report_to=tuple(log_to or ()),
        engine=EngineConfig(
            name=engine, workers=workers, threads=threads, cpus=cpus, gpus=gpus, retries=retries
        ),
    )
    show_table(grid.overview())
    print(f"\n{as_text(grid.findings)}\n{grid}\n\nTables: {place / TABLES}")
    if figures:
        print(f"Figures: {place / FIGURES}")
    if not grid.is_whole:
        raise typer.Exit(1)
