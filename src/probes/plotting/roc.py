"""Shows what a detector costs in false alarms on each kind of prompt, not on their mixture."""

import pandas as pd
from matplotlib.axes import Axes

from probes.plotting.style import LINES, SPARE, in_order, need

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
