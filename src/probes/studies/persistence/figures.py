"""Every figure of a persistence grid, drawn from its saved rows and from nothing else."""

from pathlib import Path

from probes.foundation.progress import progress
from probes.plotting.style import save, style
from probes.studies.persistence.findings import findings
from probes.studies.persistence.pictures import PICTURES, Scene
from probes.studies.persistence.reading import Reading
from probes.studies.persistence.tables import Tables
from probes.studies.sketch import Sketch


def sketches(tables: Tables) -> dict[str, Sketch]:
    """Every figure that there are rows for, by name: `<behaviour>_<trigger>_<figure>`."""
    table = findings(tables)
    drawn: dict[str, Sketch] = {}
    for behaviour, trigger in progress(tables.organisms, "figures"):
        scene = Scene(Reading(tables, behaviour, trigger), table)
        stem = f"{behaviour.rsplit(':', 1)[-1].lower()}_{trigger}"
        with style():
            for draw in PICTURES:
                drawn |= {f"{stem}_{sketch.name}": sketch for sketch in draw(scene)}
    return drawn


def redraw(rows_dir: Path | str, figures_dir: Path | str) -> list[Path]:
    """Draw every figure for which `rows_dir` has rows; returns the PNGs.

    Each is saved as `<name>.png`, `.pdf` and `.csv` (the numbers drawn), with its title and caption in
    the CSV's provenance. What a grid did not run has no figure.
    """
    made = []
    for name, sketch in sketches(Tables.read(rows_dir)).items():
        facts = {"title": sketch.title, "caption": sketch.caption}
        picture, *_ = save(sketch.picture, Path(figures_dir) / name, sketch.rows, **facts)
        made.append(picture)
    return made
