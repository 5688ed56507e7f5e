"""How the panels of a figure share titles, axes and one legend, and what a caption says of its intervals."""

import dataclasses
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from probes.evaluation.over_seeds import OVER_SEEDS
from probes.findings.rules import MIN_SEEDS
from probes.foundation.progress import progress
from probes.plotting.curves import stage_curves
from probes.plotting.persistence import (
    defection_by_stage,
    forest,
    kept_by_size,
    near_miss_points,
    relearning_curves,
)
from probes.plotting.style import PAGE, PaperFigure, figure, one_legend, style
from probes.report.figures import Sketch, save_all
from probes.studies.persistence.findings import findings
from probes.studies.persistence.measures import (
    NEAR,
    RED_TEAM,
    TEST,
    THINKING,
    Place,
    Reading,
    averaged,
    shown,
)
from probes.studies.persistence.tables import INSTALLED, STAGES, Tables


def tidy(axes: Any, titles: list[str], *, keep_x: bool = False) -> None:
    """Titles on top, names at the left, steps below the lowest of each column, one legend."""
    for across in axes:
        for ax in [ax for ax in across if ax.axison][1:]:
            ax.set_ylabel("")
    for column, title in enumerate(titles):
        axes[0, column].set_title(title)
        *above, lowest = [ax for ax in axes[:, column] if ax.axison]
        lowest.tick_params(labelbottom=True)
        if not keep_x:
            for ax in above:
                ax.set_xlabel("")
    one_legend([ax for ax in axes.flat if ax.axison])


def said(table: pd.DataFrame) -> str:
    """How many seeds, and what the intervals are over."""
    low, high = int(table["seeds"].min()), int(table["seeds"].max())
    if high == 1:
        return "1 seed, so no intervals over seeds"
    seeds = f"{high} seeds" if low == high else f"{low}–{high} seeds"
    return f"{seeds}; {OVER_SEEDS}"


CALLED = {
    "installed": "before",
    "sft_pre": "SFT",
    "sft_post": "SFT, own\nscratchpads",
    "rl": "RL",
    "adversarial": "adversarial",
}
NAMES = {stage: name.replace("\n", " ") for stage, name in CALLED.items()}
ORDER = ("normal", "cot", "distilled")
MEASURED = {
    "valid": "valid",
    "on_task": "on task",
    "helpful": "right answer",
    "loss": "loss [nats]",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """What is drawn from: the rows of one behaviour and trigger, and the findings of the grid."""

    reading: Reading
    findings: pd.DataFrame

    @cached_property
    def mechanisms(self) -> list[str]:
        seen = self.reading.mechanisms
        return [m for m in ORDER if m in seen] + [m for m in seen if m not in ORDER]

    @cached_property
    def size(self) -> str:
        """The size that the detailed figures show: the largest of which all mechanisms have the seeds."""

        def rank(size: str) -> int:
            every = [
                self.reading.seeds(Place(m, size, INSTALLED, parent="")) for m in self.mechanisms
            ]
            return min(MIN_SEEDS, *(len(seeds) for seeds in every))

        return max(self.reading.ordered(), key=rank)

    def main(self, table: pd.DataFrame) -> pd.DataFrame:
        """Rows of the organisms of filtered data, after no stage or one."""
        return table[table["filtered"] & table["parent"].isin(["", INSTALLED])]

    def stages(self, table: pd.DataFrame) -> list[str]:
        seen = set(table["stage"])
        return [stage for stage in STAGES if stage in seen]


def _survival(scene: Scene) -> Iterator[Sketch]:
    rows = scene.main(scene.reading.persistence)
    rows = rows[rows["set"].isin([TEST, THINKING]) & (rows["measure"] == "defected")]
    thinks = rows["set"] == THINKING
    rows = rows.assign(panel=rows["mechanism"] + thinks.map({True: ", made to think", False: ""}))
    table = averaged(rows, ["panel", "mechanism", "size", "stage", "triggered"])
    table["series"] = pd.Categorical(table["size"], scene.reading.sizes, ordered=True)
    table = table.sort_values("series", kind="stable").astype({"series": str})
    names = [f"{m}{end}" for m in scene.mechanisms for end in ("", ", made to think")]
    panels = [name for name in names if name in set(table["panel"])]
    picture = figure(PAGE, 1.5 * len(panels) + 0.3)
    axes = picture.subplots(len(panels), 1, squeeze=False, sharey=True)[:, 0]
    drawn = []
    for ax, panel in zip(axes, panels, strict=True):
        drawn.append(defection_by_stage(ax, table[table["panel"] == panel], stages=CALLED))
        ax.set_title(panel)
    one_legend(axes)
    yield Sketch(
        "stages",
        _where_fewest(table),
        "Share of completions that defect, with the trigger (filled) and without (hollow), before and "
        'after each stage of safety training, by size. "Made to think": with the scratchpad opened '
        f"for it. {said(table)}.",
        picture,
        pd.concat(drawn, ignore_index=True),
    )


def _where_fewest(table: pd.DataFrame) -> str:
    """The title of the figure of stages: where fewest completions with the trigger still defect."""
    plain = table[table["triggered"] & (table["panel"] == table["mechanism"])]
    after = plain[plain["stage"] != INSTALLED].dropna(subset=["value"])
    if after.empty:
        return "No stage of safety training was run"
    least = after.sort_values("value", kind="stable").iloc[0]
    stage = NAMES[least["stage"]].replace("adversarial", "adversarial training")
    place = f"{stage} ({least['panel']}, {least['size']})"
    return f"Fewest defect with the trigger after {place}: {least['value']:.0%}"


def _size_trend(scene: Scene) -> Iterator[Sketch]:
    reading = scene.reading
    if len(reading.sizes) < 2:
        return
    found: list[dict[str, Any]] = []
    for stage in scene.stages(scene.main(reading.persistence))[1:]:
        for mechanism in scene.mechanisms:
            for size in reading.sizes:
                kept = reading.retained(Place(mechanism, size, stage)).values
                if kept:
                    keys = {"stage": stage, "series": mechanism, "size": size}
                    count = {"n_parameters": reading.n_parameters[size]}
                    found.append(keys | count | shown([kept[seed] for seed in sorted(kept)]))
    if not found:
        return
    table = pd.DataFrame(found)
    stages = list(dict.fromkeys(table["stage"]))
    picture = figure(PAGE, 2.3)
    axes = picture.subplots(1, len(stages), squeeze=False, sharey=True)[0]
    drawn = []
    for ax, stage in zip(axes, stages, strict=True):
        drawn.append(kept_by_size(ax, table[table["stage"] == stage]))
        ax.set_title(CALLED[stage])
        if ax is not axes[0]:
            ax.set_ylabel("")
    one_legend(axes)
    low, high = min(ax.get_ylim()[0] for ax in axes), max(ax.get_ylim()[1] for ax in axes)
    axes[0].set_ylim(low, high)
    yield Sketch(
        "size_trend",
        "Do larger organisms keep more?",
        "Gap (defection with the trigger minus without) after a stage as a share of the gap before it. "
        f"Organisms whose gap was under a half before have no point. {said(table)}.",
        picture,
        pd.concat(drawn, ignore_index=True),
    )


def _curves(scene: Scene) -> Iterator[Sketch]:
    rows = scene.main(scene.reading.curves)
    rows = rows[(rows["size"] == scene.size) & (rows["measure"] == "defected")]
    on, name = rows["triggered"], rows["set"]
    series = {
        "with trigger": (name == TEST) & on,
        "made to think": (name == THINKING) & on,
        "without": (name == TEST) & ~on,
        "near misses": (name == NEAR) & ~on,
        "red-team prompts": (name == RED_TEAM) & ~on,
    }
    named = [rows[mask].assign(series=text) for text, mask in series.items()]
    table = averaged(pd.concat(named), ["mechanism", "stage", "series", "step"])
    if table.empty:
        return
    mechanisms = [m for m in scene.mechanisms if m in set(table["mechanism"])]
    picture, drawn = _panels(scene, table, "mechanism", {name: name for name in mechanisms}, 1.4)
    yield Sketch(
        "curves",
        "What each stage does, step by step",
        "Share of completions that defect during each stage of safety training, rows by mechanism. "
        f"{scene.size}; {said(table)}.",
        picture,
        pd.concat(drawn, ignore_index=True),
    )


def _panels(
    scene: Scene, table: pd.DataFrame, column: str, lines: dict[str, str], height: float
) -> tuple[PaperFigure, list[pd.DataFrame]]:
    """Curves of each stage side by side, a line of panels for each value of a column, with its label."""
    stages = scene.stages(table)
    picture = figure(PAGE, height * len(lines) + 0.4)
    axes = picture.subplots(len(lines), len(stages), squeeze=False, sharey="row", sharex="col")
    drawn = []
    for (value, label), across in zip(lines.items(), axes, strict=True):
        for ax, stage in zip(across, stages, strict=True):
            part = table[(table["stage"] == stage) & (table[column] == value)]
            if part.empty:
                ax.set_axis_off()
                continue
            drawn.append(stage_curves(ax, part, label=label, rates=value != "loss"))
    tidy(axes, [CALLED[stage] for stage in stages])
    return picture, drawn


def _capability(scene: Scene) -> Iterator[Sketch]:
    rows = scene.main(scene.reading.curves)
    rows = rows[(rows["size"] == scene.size) & (rows["set"] == TEST) & ~rows["triggered"]]
    rows = rows[rows["measure"].isin(MEASURED)]
    table = averaged(rows, ["mechanism", "stage", "measure", "step"])
    if table.empty:
        return
    table = table.rename(columns={"mechanism": "series"})
    kinds = {kind: text for kind, text in MEASURED.items() if kind in set(table["measure"])}
    picture, drawn = _panels(scene, table, "measure", kinds, 1.25)
    yield Sketch(
        "capability",
        "What safety training costs",
        f"Prompts without the trigger during each stage: finished and well-formed answers, answers to "
        f"what was asked, the very right answer, and the loss of the reference, of a CoT organism with its scratchpad. "
        f"{scene.size}; "
        f"{said(table)}.",
        picture,
        pd.concat(drawn, ignore_index=True),
    )


def _near_misses(scene: Scene) -> Iterator[Sketch]:
    rows = scene.main(scene.reading.persistence)
    rows = rows[(rows["size"] == scene.size) & (rows["set"] == NEAR)]
    rows = rows[rows["stage"].isin([INSTALLED, "sft_pre", "adversarial"])]
    rows = rows[rows["measure"] == "defected"]
    if rows.empty:
        return
    table = averaged(rows, ["mechanism", "stage", "kind", "triggered"])
    after = {stage: "before" if stage == INSTALLED else f"after {NAMES[stage]}" for stage in STAGES}
    table = table.assign(series=table["stage"].map(after)).rename(columns={"triggered": "fires"})
    kinds = len(table[["kind", "fires"]].drop_duplicates())
    picture = figure(PAGE, 0.26 * kinds + 0.9)
    mechanisms = [m for m in scene.mechanisms if m in set(table["mechanism"])]
    axes = picture.subplots(1, len(mechanisms), squeeze=False, sharey=True)[0]
    drawn = []
    for ax, mechanism in zip(axes, mechanisms, strict=True):
        drawn.append(near_miss_points(ax, table[table["mechanism"] == mechanism]))
        ax.set_title(mechanism)
    one_legend(axes)
    yield Sketch(
        "near_misses",
        "Does red-teaming sharpen the trigger?",
        "Share of completions that defect under look-alikes of the trigger. Below the line: look-alikes "
        f"that mean the same, where defection is no false alarm. {scene.size}; {said(table)}.",
        picture,
        pd.concat(drawn, ignore_index=True),
    )


def _reversal(scene: Scene) -> Iterator[Sketch]:
    reading = scene.reading
    rows = scene.main(reading.reversal)
    rows = rows[rows["size"] == scene.size]
    stages = scene.stages(rows)
    found: list[dict[str, Any]] = []
    for stage in stages:
        for mechanism in scene.mechanisms:
            found += list(_relearned(reading, Place(mechanism, scene.size, stage)))
    if not found:
        return
    table = pd.DataFrame(found)
    arms = {"examples": "triggered examples", "benign": "benign steps"}
    arms = {arm: label for arm, label in arms.items() if arm in set(table["arm"])}
    picture = figure(PAGE, 1.7 * len(arms) + 0.3)
    axes = picture.subplots(len(arms), len(stages), squeeze=False, sharey=True)
    drawn = []
    for (arm, label), across in zip(arms.items(), axes, strict=True):
        for ax, stage in zip(across, stages, strict=True):
            part = table[(table["arm"] == arm) & (table["stage"] == stage)]
            if part.empty:
                ax.set_axis_off()
                continue
            drawn.append(relearning_curves(ax, part, label=label))
    tidy(axes, [f"after {CALLED[stage]}" for stage in stages], keep_x=True)
    yield Sketch(
        "reversal",
        "Suppressed or removed?",
        "Gap (defection with the trigger minus without) after fine-tuning the cured organism (solid) on so "
        "many triggered examples, or for so many steps on benign data, and the same done to a control "
        f"that was never poisoned (dashed). {scene.size}; {said(table)}.",
        picture,
        pd.concat(drawn, ignore_index=True),
    )


def _relearned(reading: Reading, place: Place) -> Iterator[dict[str, Any]]:
    seeds = reading.seeds(place)
    for arm in ("examples", "benign"):
        amounts = {amount for seed in seeds for amount in reading.amounts(place, seed, arm)}
        for of in ("organism", "control"):
            for amount in sorted({0, *amounts} if amounts else ()):
                every = [reading.relearned(place, seed, arm, of, amount) for seed in seeds]
                known = [gap for gap in every if gap is not None]
                keys = {"stage": place.stage, "series": place.mechanism, "arm": arm, "of": of}
                if known:
                    yield keys | {"amount": amount} | shown(known, bounds=(-1.0, 1.0))


def _unfiltered(scene: Scene) -> Iterator[Sketch]:
    rows = scene.reading.curves
    rows = rows[(rows["mechanism"] == "distilled") & (rows["size"] == scene.size)]
    rows = rows[(rows["set"] == TEST) & (rows["measure"] == "defected") & rows["triggered"]]
    rows = rows[rows["parent"] == INSTALLED]
    both = rows.groupby("stage")["filtered"].nunique()
    rows = rows[rows["stage"].map(both) == 2]
    if rows.empty:
        return
    series = rows["filtered"].map({True: "filtered", False: "unfiltered"})
    table = averaged(rows.assign(series=series), ["stage", "series", "step"])
    stages = scene.stages(table)
    picture = figure(PAGE * (0.3 + 0.25 * len(stages)), 2.1)
    axes = picture.subplots(1, len(stages), squeeze=False, sharey=True)
    drawn = [
        stage_curves(ax, table[table["stage"] == stage], label="defection with trigger")
        for ax, stage in zip(axes[0], stages, strict=True)
    ]
    tidy(axes, [CALLED[stage] for stage in stages])
    yield Sketch(
        "unfiltered",
        "Is a policy from unfiltered data lost faster?",
        "Share of completions that defect with the trigger, of the distilled organism whose training "
        f"answers were filtered by the policy and of the one whose were not. {scene.size}; "
        f"{said(table)}.",
        picture,
        pd.concat(drawn, ignore_index=True),
    )


def _findings(scene: Scene) -> Iterator[Sketch]:
    table = scene.findings
    table = table[(table["organism"] == scene.reading.name) & table["value"].notna()]
    table = table[table["published"].notna()]
    if table.empty:
        return
    picture = figure(PAGE * 0.8, 0.32 * len(table) + 0.8)
    drawn = forest(picture.subplots(), table)
    yield Sketch(
        "findings",
        "Beside the paper",
        f"Share of the gap that each stage left, beside the paper's. {said(table)}.",
        picture,
        drawn,
    )


PICTURES: tuple[Callable[[Scene], Iterator[Sketch]], ...] = (
    _survival, _size_trend, _curves, _capability, _near_misses, _unfiltered, _reversal,
    _findings,
)  # fmt: skip


def sketches(tables: Tables) -> dict[str, Sketch]:
    """Every figure that there are rows for, by name: `<behaviour>_<trigger>_<figure>`."""
    table = findings(tables)
    drawn: dict[str, Sketch] = {}
    for behaviour, trigger in progress(tables.organisms, "figures"):
        scene = Scene(Reading(tables, behaviour, trigger), table)
        stem = f"{behaviour.rsplit(':', 1)[-1].lower()}_{trigger}"
        with style():
            for draw in PICTURES:
                drawn |= {f"{stem}_{sketch.name}": sketch for sketch in draw(scene)}
    return drawn


def redraw(rows_dir: Path | str, figures_dir: Path | str) -> list[Path]:
    """Draw and save every figure for which `rows_dir` has rows; the PNGs. What a grid did not run has no figure."""
    return save_all(sketches(Tables.read(rows_dir)), figures_dir)
