"""Shows by layer or site what was measured there."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator

from probes.plotting.style import (
    PROMPT_SET_MARKERS,
    PROMPT_SETS,
    colours,
    in_order,
    markers,
    need,
)

MANY_LAYERS = 10


def auroc_by_site(ax: Axes, rows: pd.DataFrame) -> pd.DataFrame:
    """One point per site in the order given, with a bar from the lowest to the highest fold.

    rows: columns `site` (str), `auroc`, `auroc_min`, `auroc_max` (0 to 1). Returns the rows drawn.
    """
    need(rows, "auroc_by_site", ["site"], ["auroc", "auroc_min", "auroc_max"])
    middle = rows["auroc"].to_numpy(float)
    below, above = middle - rows["auroc_min"], rows["auroc_max"] - middle
    ax.errorbar(range(len(rows)), middle, yerr=[below, above], color="#D55E00", marker="o", capsize=1.5,
                elinewidth=0.8)  # fmt: skip
    ax.axhline(0.5, color="#999999", linewidth=0.8, linestyle=":", zorder=1)
    step = 1 + (len(rows) - 1) // MANY_LAYERS
    ax.set_xticks(range(0, len(rows), step), rows["site"].iloc[::step], rotation=45, ha="right")
    ax.set_ylabel("AUROC of held-out folds")
    ax.set_ylim(bottom=min(ax.get_ylim()[0], 0.4), top=1.03)
    return rows.reset_index(drop=True)


def name_layers(ax: Axes, layers: list[int]) -> None:
    """Ticks of a layer axis by the site's name, as in tables: pre.0, then post.0 after the first block.

    Every other one when many.
    """
    step = 1 + len(layers) // MANY_LAYERS
    shown = [layer for layer in layers if layer % step == 0]
    ax.xaxis.set_major_locator(FixedLocator(shown))
    ax.set_xticks(shown, ["pre.0" if layer == 0 else f"post.{layer - 1}" for layer in shown])
    ax.set_xlabel("site of the residual stream (resid_…)")


RUNS = {"clean": "#E69F00", "corrupted": "#56B4E9", "clean - corrupted": "#D55E00"}


def lens_by_depth(
    ax: Axes, rows: pd.DataFrame, *, measure: str = "parting", label: str | None = None
) -> pd.DataFrame:
    """One line per run against depth, with a band where there are intervals.

    rows: columns `run`, `measure` (str), `depth` (int; 0 = embeddings), `mean`, and `low`, `high`
    where there are intervals. measure: which to draw. label: the axis, name and unit.
    Returns the rows drawn. Raises `InputError` where there is no such measure.
    """
    need(rows, "lens_by_depth", ["run", "measure"], ["depth", "mean"])
    part = rows[rows["measure"] == measure]
    need(part, f"lens_by_depth({measure!r})", ["run"], ["depth", "mean"])
    names = in_order(part["run"], RUNS)
    colour = colours(names, RUNS)
    for name in names:
        line = part[part["run"] == name].sort_values("depth")
        depth = line["depth"].to_numpy(float)
        ax.plot(depth, line["mean"].to_numpy(float), color=colour[name], marker="o", label=name)
        if {"low", "high"} <= set(line.columns):
            ax.fill_between(
                depth, line["low"].to_numpy(float), line["high"].to_numpy(float),
                color=colour[name], alpha=0.15, linewidth=0,
            )  # fmt: skip
    ax.axhline(0, color="#999999", linewidth=0.8, linestyle=":")
    name_layers(ax, sorted(int(depth) for depth in part["depth"].unique()))
    ax.set_ylabel(label or measure)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(names))
    return part.reset_index(drop=True)


def ratio_by_layer(ax: Axes, rows: pd.DataFrame, *, log: bool = False) -> pd.DataFrame:
    """Between-class over within-class variance of triggered and untriggered prompts, by layer.

    rows: columns `series` (prompt set or organism, str), `layer` (int; 0 = embeddings), `ratio`
    (0 or more; more than 1: classes differ more than their members). log: logarithmic ratios.
    Returns the rows drawn.
    """
    need(rows, "ratio_by_layer", ["series"], ["layer", "ratio"])
    names = in_order(rows["series"], PROMPT_SETS)
    colour, marker = colours(names, PROMPT_SETS), markers(names, PROMPT_SET_MARKERS)
    drawn = []
    for name in names:
        part = rows[rows["series"] == name].sort_values("layer")
        ax.plot(
            part["layer"].to_numpy(float),
            part["ratio"].to_numpy(float),
            color=colour[name],
            marker=marker[name],
            label=name,
        )
        drawn.append(part)
    if log:
        ax.set_yscale("log")
    else:
        ax.set_ylim(bottom=0)
    name_layers(ax, sorted(int(layer) for layer in rows["layer"].unique()))
    ax.set_ylabel("between / within variance")
    ax.legend(loc="best")
    return pd.concat(drawn, ignore_index=True)
