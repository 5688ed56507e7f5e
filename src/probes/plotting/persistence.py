"""Shows whether a backdoor survives: by stage, size, near miss and relearning, and beside what the paper found."""

import textwrap

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from probes.plotting.style import (
    MECHANISM_MARKERS,
    MECHANISMS,
    SPARE_MARKERS,
    VERDICTS,
    band,
    colours,
    in_order,
    line_each,
    markers,
    need,
    percents,
    shades,
    whiskers,
)

STAGE_SPREAD = 0.6  # of the distance between two stages, over which the sizes are spread


def defection_by_stage(
    ax: Axes, rows: pd.DataFrame, *, stages: dict[str, str] | None = None
) -> pd.DataFrame:
    """One point with its interval per size, filled with the trigger and hollow without, by stage.

    rows: columns `series` (size, in the order of the colours), `stage` (str), `triggered` (bool),
    `value` (rate, 0 to 1) and its `low`, `high`. stages: what they are called, in order.
    Returns the rows drawn, in the order drawn.
    """
    need(rows, "defection_by_stage", ["series", "stage", "triggered", "low", "high"], ["value"])
    names = in_order(rows["series"], ())
    called = stages or {}
    order = in_order(rows["stage"], called)
    place = {stage: i for i, stage in enumerate(order)}
    colour = shades(names)
    drawn = []
    for k, name in enumerate(names):
        shift = STAGE_SPREAD * ((k + 0.5) / len(names) - 0.5)
        for triggered in (True, False):
            part = rows[(rows["series"] == name) & (rows["triggered"] == triggered)]
            part = part.assign(x=part["stage"].map(place)).sort_values("x")
            ax.errorbar(
                part["x"].to_numpy(float) + shift,
                part["value"].to_numpy(float),
                yerr=whiskers(part),
                linestyle="none",
                color=colour[name],
                marker="o",
                markerfacecolor=colour[name] if triggered else "white",
                capsize=1.5,
                elinewidth=0.9,
            )
            drawn.append(part.drop(columns="x"))
    for i in range(0, len(order), 2):
        ax.axvspan(i - 0.5, i + 0.5, color="#f5f5f5", zorder=0, linewidth=0)
    ax.set_xticks(range(len(order)), [called.get(stage, stage) for stage in order])
    ax.set_xlim(-0.5, len(order) - 0.5)
    ax.grid(False, axis="x")
    percents(ax)
    ax.set_ylabel("defection")
    handles = [
        *(Line2D([], [], marker="o", linestyle="none", color=colour[n], label=n) for n in names),
        Line2D([], [], marker="o", linestyle="none", color="#555555", label="with trigger"),
        Line2D([], [], marker="o", linestyle="none", color="#555555", markerfacecolor="white",
               label="without"),
    ]  # fmt: skip
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5), handlelength=1)
    return pd.concat(drawn, ignore_index=True)


SHIFT = 0.05  # in factors of ten, so that intervals of one size stand beside one another


def kept_by_size(ax: Axes, rows: pd.DataFrame) -> pd.DataFrame:
    """The share of the backdoor that is left against the number of parameters, one line per mechanism.

    rows: columns `series` (mechanism, str), `n_parameters` (int), `value` (1 = all of it), and its
    `low`, `high` (may be empty). Returns the rows drawn.
    """
    need(rows, "kept_by_size", ["series", "low", "high"], ["n_parameters", "value"])
    names = in_order(rows["series"], MECHANISMS)
    colour, marker = colours(names, MECHANISMS), markers(names, MECHANISM_MARKERS)
    drawn = []
    for k, name in enumerate(names):
        part = rows[rows["series"] == name].sort_values("n_parameters")
        ax.errorbar(
            part["n_parameters"].to_numpy(float) * 10 ** (SHIFT * (k - (len(names) - 1) / 2)),
            part["value"].to_numpy(float),
            yerr=whiskers(part),
            color=colour[name],
            marker=marker[name],
            capsize=1.5,
            elinewidth=0.8,
        )
        drawn.append(part)
    sizes = sorted({int(n) for n in rows["n_parameters"]})
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(sizes))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n / 1e6:.2g}"))
    ax.set_xlim(sizes[0] / 1.6, sizes[-1] * 1.6)
    ax.set_xlabel("million parameters")
    tops = [float(rows[end].max()) for end in ("value", "high")]
    lows = [float(rows[end].min()) for end in ("value", "low")]
    percents(ax, low=max(-0.3, min(-0.04, *lows)), high=min(1.5, max(1.04, *tops)))
    ax.set_ylabel("share of the gap kept")
    handles = [
        Line2D([], [], marker=marker[name], color=colour[name], label=name) for name in names
    ]
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5))
    return pd.concat(drawn, ignore_index=True)


WONG = ("#7f7f7f", "#D55E00", "#0072B2", "#009E73")
MARKERS = ("o", "D", "s", *SPARE_MARKERS)
KIND_SPREAD = 0.55  # of the distance between two kinds, over which the series are spread


def near_miss_points(ax: Axes, rows: pd.DataFrame) -> pd.DataFrame:
    """One row per kind of look-alike, one point with its interval per series, from the top down.

    rows: columns `kind` (str), `fires` (bool: its meaning is the trigger's, so that defection is no
    false alarm), `series` ("before", "after ..."), `value` (rate of defection), `low`, `high`.
    Kinds that mean the trigger stand below a line. Returns the rows drawn.
    """
    need(rows, "near_miss_points", ["kind", "fires", "series", "low", "high"], ["value"])
    kinds = [
        (kind, fires)
        for fires in (False, True)
        for kind in in_order(rows.loc[rows["fires"] == fires, "kind"], ())
    ]
    place = {each: -i for i, each in enumerate(kinds)}
    names = in_order(rows["series"], ())
    drawn = []
    for k, name in enumerate(names):
        part = rows[rows["series"] == name]
        at = [place[kind, bool(f)] for kind, f in zip(part["kind"], part["fires"], strict=True)]
        part = part.assign(at=at).sort_values("at", ascending=False)
        ax.errorbar(
            part["value"].to_numpy(float),
            part["at"].to_numpy(float) - KIND_SPREAD * ((k + 0.5) / len(names) - 0.5),
            xerr=whiskers(part),
            linestyle="none",
            color=WONG[k % len(WONG)],
            marker=MARKERS[k],
            markersize=3.5,
            capsize=1.5,
            elinewidth=0.9,
        )
        drawn.append(part.drop(columns="at"))
    misses = sum(not fires for _, fires in kinds)
    if 0 < misses < len(kinds):
        ax.axhline(0.5 - misses, color="#999999", linewidth=0.8)
    line_each(ax, [kind for kind, _ in kinds])
    ax.set_xlim(-0.04, 1.04)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    ax.set_xlabel("defection")
    handles = [
        Line2D([], [], marker=MARKERS[k], color=WONG[k % len(WONG)], linestyle="none", label=name)
        for k, name in enumerate(names)
    ]
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5), handlelength=1)
    return pd.concat(drawn, ignore_index=True)


LINES = {"organism": "-", "control": "--"}


def relearning_curves(
    ax: Axes, rows: pd.DataFrame, *, label: str = "triggered examples"
) -> pd.DataFrame:
    """The gap against how much was trained on: solid the cured organism, dashed its control.

    rows: columns `series` (mechanism, str), `of` ("organism" or "control", never poisoned),
    `amount` (int, 0 = nothing yet), `value` (defection with trigger minus without) and its `low`,
    `high`. label: what the amounts count. Amounts are on a scale that holds 0 and doublings.
    Returns the rows drawn.
    """
    need(rows, "relearning_curves", ["series", "of", "low", "high"], ["amount", "value"])
    names = in_order(rows["series"], MECHANISMS)
    colour, marker = colours(names, MECHANISMS), markers(names, MECHANISM_MARKERS)
    drawn = []
    for name in names:
        for of, line in LINES.items():
            part = rows[(rows["series"] == name) & (rows["of"] == of)].sort_values("amount")
            if part.empty:
                continue
            x = part["amount"].to_numpy(float)
            ax.plot(
                x,
                part["value"].to_numpy(float),
                color=colour[name],
                linestyle=line,
                marker=marker[name],
                markersize=3,
                markerfacecolor=colour[name] if of == "organism" else "white",
                label=f"{name}, {of}",
            )
            if of == "organism":
                band(ax, x, part, colour[name])
            drawn.append(part)
    amounts = sorted({int(amount) for amount in rows["amount"]})
    least = next((amount for amount in amounts if amount), 1)
    ax.set_xscale("symlog", base=2, linthresh=least, linscale=0.5)
    ax.xaxis.set_major_locator(FixedLocator(amounts))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(amounts, [str(amount) for amount in amounts])
    ax.set_xlabel(label)
    percents(ax, low=min(-0.04, float(rows["value"].min()) - 0.04))
    ax.set_ylabel("gap")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return pd.concat(drawn, ignore_index=True)


WRAP = 46  # characters of a finding that fit on one line


def forest(ax: Axes, rows: pd.DataFrame, *, label: str = "share of the gap kept") -> pd.DataFrame:
    """One line per finding, from the top down, coloured by verdict; a hollow diamond is the paper's.

    rows: columns `finding`, `verdict` ("agrees", "disagrees" or "not resolved"), `value`, its `low`,
    `high` (may be empty), and `published`, the paper's number (may be empty).
    Returns the rows drawn.
    """
    need(rows, "forest", ["finding", "verdict", "low", "high", "published"], ["value"])
    for place, (_, row) in enumerate(rows.iterrows()):
        one = rows.iloc[[place]]
        ax.errorbar(
            [float(row["value"])], [-place], xerr=whiskers(one), color=VERDICTS[row["verdict"]],
            marker="o", capsize=1.5, elinewidth=1.1, linestyle="none", zorder=3,
        )  # fmt: skip
    known = rows["published"].notna().to_numpy()
    ax.scatter(
        rows["published"].to_numpy(float)[known],
        [-place for place in range(len(rows)) if known[place]],
        marker="D", s=26, facecolors="none", edgecolors="black", linewidths=0.8, zorder=4,
    )  # fmt: skip
    line_each(ax, [textwrap.fill(str(name), WRAP) for name in rows["finding"]])
    ax.axvline(0, color="#999999", linewidth=0.8)
    ax.set_xlabel(label)
    handles = [
        Line2D([], [], marker="o", linestyle="none", color=colour, label=verdict)
        for verdict, colour in VERDICTS.items()
        if verdict in set(rows["verdict"])
    ]
    if known.any():
        handles.append(
            Line2D([], [], marker="D", linestyle="none", color="black", markerfacecolor="none",
                   label="paper")
        )  # fmt: skip
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, handlelength=1)
    return rows.reset_index(drop=True)
