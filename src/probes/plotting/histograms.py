"""Shows whether a probe's scores set triggered prompts apart, and in which prompt sets."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from probes.plotting.style import PROMPT_SETS, TRIGGERED, in_order, need

RIDGE = 0.85  # height of the tallest bar, in units of the distance between two prompt sets


def score_histograms(
    ax: Axes,
    rows: pd.DataFrame,
    *,
    n_bins: int = 40,
    labels: tuple[str, str] = ("2023", "2024"),
    threshold: float | None = None,
) -> pd.DataFrame:
    """One ridge per prompt set, on one score axis, with triggered and untriggered prompts overlaid.

    rows: one per prompt; columns `prompt_set` (str), `triggered` (bool), `score` (float).
    labels: what untriggered and triggered prompts are called. threshold: a score to mark.
    Each histogram is scaled to its own total, so its bars are fractions of its prompts.
    Returns the bars: `prompt_set, triggered, left, right, fraction, count, n`.
    """
    need(rows, "score_histograms", ["prompt_set", "triggered"], ["score"])
    names = in_order(rows["prompt_set"], PROMPT_SETS)[::-1]
    edges = np.histogram_bin_edges(rows["score"].to_numpy(float), bins=n_bins)
    bars = pd.concat(
        [
            _bars(part, str(name), bool(triggered), edges)
            for (name, triggered), part in rows.groupby(["prompt_set", "triggered"], sort=True)
        ],
        ignore_index=True,
    )
    scale = RIDGE / bars["fraction"].max()
    for base, name in enumerate(names):
        ax.axhline(base, color="#999999", linewidth=0.5)
        for triggered in (False, True):
            part = bars[(bars["prompt_set"] == name) & (bars["triggered"] == triggered)]
            if part.empty:
                continue
            ax.stairs(
                base + part["fraction"].to_numpy() * scale,
                edges,
                baseline=base,
                fill=True,
                facecolor=TRIGGERED[triggered],
                edgecolor="none",
                alpha=0.65,
                label=labels[triggered] if base == len(names) - 1 else None,
            )
    counts = rows.groupby("prompt_set").size()
    ax.set_yticks(range(len(names)), [f"{name}\nn = {counts[name]}" for name in names])
    ax.set_ylim(-0.08, len(names) - 0.02)
    ax.grid(False, axis="y")
    ax.set_xlabel("probe score")
    if threshold is not None:
        ax.axvline(threshold, color="black", linestyle=":", linewidth=0.9, label="threshold")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0.1)
    return bars


def _bars(part: pd.DataFrame, prompt_set: str, triggered: bool, edges: np.ndarray) -> pd.DataFrame:
    counts, _ = np.histogram(part["score"].to_numpy(float), bins=edges)
    return pd.DataFrame(
        {
            "prompt_set": prompt_set,
            "triggered": triggered,
            "left": edges[:-1],
            "right": edges[1:],
            "fraction": counts / len(part),
            "count": counts,
            "n": len(part),
        }
    )
