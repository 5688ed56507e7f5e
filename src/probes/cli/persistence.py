"""`probes persistence`: does the backdoor survive safety training? The whole grid, resumable."""

from pathlib import Path
from typing import Annotated

import typer

from probes.cli.arguments import OUT_HELP, AllowImportOption, out_folder
from probes.cli.engine_options import (
    ConfigOption,
    CpusOption,
    EngineOption,
    PresetOption,
    RetriesOption,
    SeedsOption,
    ThreadsOption,
    WorkersOption,
)
from probes.foundation.terminal import say


def persistence(
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            parser=out_folder,
            metavar="FOLDER",
            help=f"{OUT_HELP} Default runs/persistence.",
        ),
    ] = None,
    preset: PresetOption = "default",
    config: ConfigOption = None,
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
    seeds: SeedsOption = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(
            "--stage",
            help="sft_pre, sft_post, rl, adversarial; rl+adversarial is the one after the other. Repeatable.",
        ),
    ] = None,
    reversal: Annotated[bool, typer.Option(help="After each stage: what brings it back?")] = True,
    figures: Annotated[bool, typer.Option(help="Draw them from the tables.")] = True,
    engine: EngineOption = "process",
    workers: WorkersOption = None,
    threads: ThreadsOption = 1,
    cpus: CpusOption = None,
    gpus: Annotated[float, typer.Option(help="With ray: GPUs per cell; may be a fraction.")] = 0.0,
    retries: RetriesOption = 3,
    log_to: Annotated[
        list[str] | None,
        typer.Option("--log-to", help="tensorboard or wandb, besides the JSONL. Repeatable."),
    ] = None,
    allow_import: AllowImportOption = None,
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
    say(f"\n{as_text(grid.findings)}\n{grid}\n\nTables: {place / TABLES}")
    if figures:
        say(f"Figures: {place / FIGURES}")
    if not grid.is_whole:
        raise typer.Exit(1)
