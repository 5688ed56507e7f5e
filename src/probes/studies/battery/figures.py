"""Every figure of a battery, drawn from its saved tables and from nothing else."""

from collections.abc import Callable, Iterator
from pathlib import Path

from probes.foundation.progress import progress
from probes.plotting.style import save, style
from probes.studies.battery.pictures import claims, matrices, scores
from probes.studies.battery.reading import Reading
from probes.studies.battery.tables import Tables, read_tables
from probes.studies.sketch import Sketch

PICTURES: tuple[Callable[[Reading], Iterator[Sketch]], ...] = (
    claims.claim_cards,
    claims.controls,
    claims.questions,
    scores.histograms,
    scores.roc,
    scores.random_directions,
    scores.ratios,
    scores.planes,
    matrices.transfer,
    matrices.stages,
)


def sketches(tables: Tables) -> dict[str, Sketch]:
    """Every figure that there are rows for, by name."""
    reading = Reading(tables)
    with style():
        return {
            sketch.name: sketch
            for draw in progress(PICTURES, "figures")
            for sketch in draw(reading)
        }


def redraw(tables_dir: Path | str, figures_dir: Path | str) -> list[Path]:
    """Draw every figure for which `tables_dir` has rows; returns the PNGs.

    Each is saved as `<name>.png`, `.pdf` and `.csv` (the numbers drawn), with its title and caption in
    the CSV's provenance. What a battery did not run has no figure.
    """
    made = []
    for name, sketch in sketches(read_tables(tables_dir)).items():
        facts = {"title": sketch.title, "caption": sketch.caption}
        picture, *_ = save(sketch.picture, Path(figures_dir) / name, sketch.rows, **facts)
        made.append(picture)
    return made
