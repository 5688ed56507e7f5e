"""One look for every figure, and one way to save it: picture, print and the numbers drawn."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from probes.foundation.artifact import write_bytes
from probes.foundation.tables import write_table

COLUMN = 3.4  # inches: the width of one column of a two-column paper
PAGE = 6.9  # inches: the width of both
DPI = 200

RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "figure.dpi": 120,
    "savefig.dpi": DPI,
    "pdf.fonttype": 42,
    "svg.hashsalt": "probes",
}


class PaperFigure(Figure):
    """A matplotlib figure that shows itself in a notebook without pyplot."""

    def _repr_png_(self) -> bytes:
        return png(self)


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw with the package's fonts and sizes inside this block; the caller's return after it."""
    with matplotlib.rc_context(RC):
        yield


def figure(width: float = COLUMN, height: float = 2.4) -> PaperFigure:
    """An empty figure of this size in inches, laid out so that no label is cut off."""
    return PaperFigure(figsize=(width, height), layout="constrained")


def png(drawn: Figure) -> bytes:
    """The picture as PNG bytes (200 dpi), without a date: for a notebook or an HTML report."""
    return _rendered(drawn, "png", {"Software": None})


def save(drawn: Figure, stem: Path | str, rows: pd.DataFrame, **facts: Any) -> list[Path]:
    """Write `<stem>.png`, `<stem>.pdf` and `<stem>.csv`, the table of the numbers that were drawn.

    The CSV has the same bytes for the same rows; `facts` go into `<stem>.csv.provenance.json`.
    Raises `StageError` where the disk is full or read-only.
    """
    stem = Path(stem)
    picture, page, numbers = (stem.with_name(f"{stem.name}.{end}") for end in ("png", "pdf", "csv"))
    write_bytes(picture, png(drawn))
    write_bytes(page, _rendered(drawn, "pdf", {"CreationDate": None}))
    write_table(numbers, rows, **facts)
    return [picture, page, numbers]


def _rendered(drawn: Figure, kind: str, metadata: dict[str, None]) -> bytes:
    buffer = io.BytesIO()
    with style():
        drawn.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
    return buffer.getvalue()
