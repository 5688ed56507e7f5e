"""Shows at which layers the trigger splits a prompt set's activations more than its tasks do."""

import pandas as pd
from matplotlib.axes import Axes

from probes.plotting.layers import name_layers
from probes.plotting.palette import PROMPT_SET_MARKERS, PROMPT_SETS, colours, markers
from probes.plotting.rows import in_order, need


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
