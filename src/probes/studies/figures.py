"""Stage 7, first half: every figure of the report, drawn from the tables of an examination alone."""

import dataclasses
from pathlib import Path

import pandas as pd

from probes.foundation.progress import progress
from probes.plotting.style import DPI, save, style
from probes.studies.examine import Examination
from probes.studies.sketch import CUE_NAMES, Source
from probes.studies.sketches import FIGURES


@dataclasses.dataclass(frozen=True)
class Drawn:
    """One figure as saved: `<stem>.png`, `.pdf` and `.csv`; `png` is the picture's bytes."""

    name: str
    title: str
    caption: str
    png: bytes
    stem: Path

    @property
    def inches(self) -> float:
        """The picture's width, as its PNG header has it."""
        return int.from_bytes(self.png[16:20], "big") / DPI

    def _repr_png_(self) -> bytes:
        return self.png


def draw_figures(
    found: Examination,
    curves: pd.DataFrame | None,
    folder: Path,
    *,
    cue_names: tuple[str, str] = CUE_NAMES,
) -> dict[str, Drawn]:
    """Draw what there are rows for and save each figure as PNG, PDF and CSV into `folder`, by name.

    curves: training curves (columns model, step, loss, preference_triggered, preference_untriggered
    [nats]), or None for models that were not trained here. cue_names: what prompts without and with
    the trigger are called. Figures of stages that were left out (training, patching) are absent.
    """
    source = Source(found, curves, cue_names)
    drawn = {}
    for make in progress(FIGURES, "figures"):
        with style():
            for sketch in make(source):
                stem = folder / sketch.name
                picture, *_ = save(sketch.picture, stem, sketch.rows, caption=sketch.caption)
                drawn[sketch.name] = Drawn(
                    sketch.name, sketch.title, sketch.caption, picture.read_bytes(), stem
                )
    return drawn
