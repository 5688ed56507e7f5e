"""The figure of the dose curves: defection above, what the model can still do below, a column per mode."""

from pathlib import Path
from typing import Any

import pandas as pd

from probes.plotting.doses import add_legend, dose_curves
from probes.plotting.style import PAGE, PaperFigure, figure, save, style
from probes.studies.steering.config import ABLATE, ADD, EVERYWHERE, MODES, TO_DEFECT, TO_SAFE
from probes.studies.steering.findings import CAPABILITIES
from probes.studies.steering.steps import PLAIN

TITLES = {
    ADD: "Adding",
    ABLATE: "Ablating",
    TO_SAFE: "Setting to the\nharmless mean",
    TO_DEFECT: "Setting to the\ndefecting mean",
}
LABELS = {
    ADD: "dose [class distances]",
    ABLATE: "share removed",
    TO_SAFE: "share of the way",
    TO_DEFECT: "share of the way",
}


def dose_picture(table: pd.DataFrame, tokens: str) -> tuple[PaperFigure, pd.DataFrame]:
    """Curves for changes at these tokens, from a pooled table; the picture and the rows drawn."""
    own = table[table["tokens"] == tokens]
    columns = [
        (place, mode)
        for place in dict.fromkeys(own["place"])
        for mode in MODES
        if ((own["place"] == place) & (own["mode"] == mode)).any()
    ]
    columns.sort(key=lambda column: column[0] == EVERYWHERE)
    present = set(table["measure"])
    capability = next((name for name in CAPABILITIES if name in present), None)
    measures = ["defected", *([capability] if capability else [])]
    with style():
        picture = figure(PAGE if len(columns) < 5 else 1.6 * len(columns), 1.75 * len(measures))
        axes = picture.subplots(len(measures), len(columns), squeeze=False, sharey=True)
        drawn = []
        for i, measure in enumerate(measures):
            for j, (place, mode) in enumerate(columns):
                ax = axes[i, j]
                rows = _with_plain(table, own, place, mode, measure)
                if measure != "defected":
                    rows = rows[~rows["triggered"]]
                drawn.append(
                    dose_curves(ax, rows, label=LABELS[mode] if i + 1 == len(measures) else "")
                )
                if i == 0:
                    where = "after every block" if place == EVERYWHERE else f"{place} site"
                    ax.set_title(
                        f"{TITLES[mode]}\n{where if place in (EVERYWHERE, 'probe') else place}"
                    )
            axes[i, 0].set_ylabel(
                "defection" if measure == "defected" else f"{measure}, without trigger"
            )
        add_legend(axes[0, -1], list(own["direction"]))
    return picture, pd.concat(drawn, ignore_index=True)  # fmt: skip


def save_pictures(table: pd.DataFrame, stem: Path, **facts: Any) -> list[Path]:
    """`<stem>_<tokens>.png`, `.pdf` and `.csv` for each choice of tokens."""
    written = []
    for tokens in [t for t in dict.fromkeys(table["tokens"]) if t != PLAIN]:
        picture, rows = dose_picture(table, tokens)
        at = {"last": "the last prompt token", "all": "every token"}.get(tokens, f"{tokens} tokens")
        title = f"What it writes as directions are added or removed at {at}"
        written += save(
            picture, stem.with_name(f"{stem.name}_{tokens}"), rows, title=title, **facts
        )
    return written


def _with_plain(
    table: pd.DataFrame, own: pd.DataFrame, place: str, mode: str, measure: str
) -> pd.DataFrame:
    """The points of each direction, the plain model as dose 0 of every curve."""
    rows = own[(own["place"] == place) & (own["mode"] == mode) & (own["measure"] == measure)]
    plain = table[(table["tokens"] == PLAIN) & (table["measure"] == measure)]
    starts = [
        plain.assign(place=place, mode=mode, tokens=own["tokens"].iloc[0], direction=name)
        for name in dict.fromkeys(rows["direction"])
    ]
    joined = pd.concat([*starts, rows], ignore_index=True)
    return joined.assign(series=joined["direction"])
