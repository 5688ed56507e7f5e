"""How far estimated effects can be trusted: side by side with the exact ones, cell by cell."""

import dataclasses

import numpy as np
import pandas as pd
from scipy import stats

from probes.foundation.errors import InputError
from probes.foundation.seeds import stream
from probes.patching.found import Effects
from probes.patching.ranking import largest_first

KEYS = ("site", "head", "column", "label")
LEVEL = 0.95


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Agreement:
    """Exact and estimated effects of the same cells on the same pairs.

    rows: one per cell: `site`, `layer`, `head`, `column`, `label`, `exact`, `estimated` (means over
    pairs, in the metric's unit), `error` (estimated minus exact).
    spearman: rank correlation over cells, with its bootstrap 95% interval over pairs in `low` and
    `high`; NaN where one side is the same for every cell. pearson: linear correlation. slope: least
    squares of estimated on exact through the origin (1 = right in size). top: the share of the ten
    largest exact effects that are among the ten largest estimates.
    """

    rows: pd.DataFrame
    spearman: float
    low: float
    high: float
    pearson: float
    slope: float
    top: float
    n_pairs: int

    def __repr__(self) -> str:
        return f"Agreement({self._what()})"

    def _repr_html_(self) -> str:
        table = largest_first(self.rows, "exact")[:15].to_html(
            index=False, float_format=lambda x: f"{x:.3g}"
        )
        return f"<p>{self._what()}; the cells with the largest exact effects:</p>{table}"

    def _what(self) -> str:
        return (
            f"{len(self.rows)} cells, {self.n_pairs} pairs: rank correlation {self.spearman:.2f} "
            f"[{self.low:.2f}, {self.high:.2f}], slope {self.slope:.2f}, "
            f"{self.top:.0%} of the largest found"
        )


def compare(exact: Effects, estimated: Effects, *, n_boot: int = 200, seed: int = 0) -> Agreement:
    """Put two tables of one grid side by side.

    Raises `InputError` unless both are of the same model, pairs, metric, plan and cells.
    """
    for name in ("model_digest", "metric", "plan"):
        if getattr(exact, name) != getattr(estimated, name):
            raise InputError(
                f"two tables of different {name} cannot be compared: {getattr(exact, name)} and "
                f"{getattr(estimated, name)}"
            )
    keys = list(KEYS)
    if not exact.rows[keys].equals(estimated.rows[keys]) or not exact.per_prompt["pair"].equals(
        estimated.per_prompt["pair"]
    ):
        raise InputError(
            f"the tables have other cells or pairs ({len(exact.rows)} cells x {exact.n_pairs} pairs, "
            f"{len(estimated.rows)} x {estimated.n_pairs}): give both the same cells and pairs"
        )
    if len(exact.rows) < 3:
        raise InputError(f"a rank correlation needs at least 3 cells, not {len(exact.rows)}")
    rows = exact.rows[["site", "layer", "head", "column", "label"]].copy()
    rows["exact"], rows["estimated"] = exact.rows["mean"], estimated.rows["mean"]
    rows["error"] = rows["estimated"] - rows["exact"]
    x, y = rows["exact"].to_numpy(float), rows["estimated"].to_numpy(float)
    each = [t.per_prompt["effect"].to_numpy(float).reshape(len(x), -1) for t in (exact, estimated)]
    n_pairs = exact.n_pairs
    draws = stream(seed, "patching", "agreement").integers(n_pairs, size=(n_boot, n_pairs))
    again = [_spearman(each[0][:, d].mean(1), each[1][:, d].mean(1)) for d in draws]
    edge = (1 - LEVEL) / 2
    low, high = np.quantile(again, [edge, 1 - edge]) if n_boot else (np.nan, np.nan)
    size = min(10, len(x))
    largest = [set(np.argsort(-np.abs(v), kind="stable")[:size].tolist()) for v in (x, y)]
    return Agreement(
        rows,
        _spearman(x, y),
        float(low),
        float(high),
        float(stats.pearsonr(x, y).statistic) if np.ptp(x) and np.ptp(y) else float("nan"),
        float(x @ y / (x @ x)),
        len(largest[0] & largest[1]) / size,
        n_pairs,
    )


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    if not np.ptp(x) or not np.ptp(y):
        return float("nan")
    return float(stats.spearmanr(x, y).statistic)
