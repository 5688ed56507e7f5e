"""What a patched grid found, as a reader gets it: tidy rows, with what chance and damage would do."""

import dataclasses
import html
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from probes.evaluation.sign_flips import max_t
from probes.foundation.digest import short
from probes.patching.parts import Cell
from probes.patching.ranking import largest_first, significant
from probes.patching.result import mean_interval
from probes.patching.sources import Plan

BEST = 15


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Effects:
    """Effects of patching cells into prompts, in the metric's unit.

    rows: one per cell: `site`, `layer` (blocks that are complete below it), `head` (missing where all
        or several heads are patched), `column` (-1: everywhere), `label`, `mean` (patched minus
        unpatched, mean over pairs), `low`, `high` (bootstrap 95% over pairs), `p` (sign flips of
        pairs, corrected for the search over this whole grid), `normalised` (mean / mean of the other
        run minus the run that is patched: 0 = as unpatched, 1 = as the other run), `n` (pairs). With a
        placebo `placebo_mean`, `placebo_low`, `placebo_high`: the same with values of mismatched pairs,
        and `beyond` (mean of effect minus placebo effect) with `beyond_low`, `beyond_high`.
    per_prompt: one per cell and pair: `cell` (row number), `pair`, `patched`, `effect`, `unpatched`,
        `other`, and `placebo` where there is one.
    """

    rows: pd.DataFrame
    per_prompt: pd.DataFrame
    model: str
    model_digest: str
    metric: str
    plan: Plan
    n_pairs: int

    def strongest(self, n: int = 5) -> pd.DataFrame:
        """The cells with the largest effects."""
        return largest_first(self.rows)[:n].reset_index(drop=True)

    def significant(self, level: float = 0.05) -> pd.DataFrame:
        """The cells whose corrected p is at most `level`, strongest first."""
        return significant(self.rows, level)

    def matrix(self, value: str = "normalised", columns: str = "column") -> pd.DataFrame:
        """One measure with sites as rows, from the bottom up, and columns (or "head") across."""
        sites = list(dict.fromkeys(self.rows["site"]))
        return self.rows.pivot_table(index="site", columns=columns, values=value, sort=False).loc[
            sites
        ]

    def __repr__(self) -> str:
        best = self.strongest(1).iloc[0]
        head = "" if pd.isna(best["head"]) else f" head {int(best['head'])}"
        return (
            f"Effects({self._what()}; strongest: {best['site']}{head} at {best['label']!r}, "
            f"{best['normalised']:.0%} of the difference)"
        )

    def _repr_html_(self) -> str:
        table = self.strongest(BEST).to_html(index=False, float_format=lambda x: f"{x:.3g}")
        return f"<p>{html.escape(self._what())}; the strongest cells:</p>{table}"

    def _what(self) -> str:
        return (
            f"{self.model} ({short(self.model_digest)}), {self.n_pairs} pairs, {len(self.rows)} "
            f"cells, {self.plan.direction} with {self.plan.values} values"
        )


def summarise(
    *,
    model: str,
    model_digest: str,
    metric: str,
    plan: Plan,
    names: Sequence[str],
    cells: Sequence[Cell],
    unpatched: Float[np.ndarray, "pair"],
    other: Float[np.ndarray, "pair"],
    patched: Float[np.ndarray, "cell pair"],
    placebo: Float[np.ndarray, "cell pair"] | None,
    n_boot: int,
    n_flips: int,
    floor: float,
    seed: int,
) -> Effects:
    """Tables, intervals and corrected p from the measured numbers; floor: see `max_t`."""
    effects = patched - unpatched
    heads = [cell.head for cell in cells]
    rows = pd.DataFrame(
        {
            "site": [cell.site for cell in cells],
            "layer": [cell.layer for cell in cells],
            "head": pd.array(heads, dtype="Int64"),
            "column": [cell.column for cell in cells],
            "label": [cell.label for cell in cells],
            "mean": effects.mean(-1),
        }
    )
    per_prompt = pd.DataFrame(
        {
            "cell": np.repeat(np.arange(len(cells)), len(names)),
            "pair": list(names) * len(cells),
            "patched": patched.ravel(),
            "effect": effects.ravel(),
            "unpatched": np.tile(unpatched, len(cells)),
            "other": np.tile(other, len(cells)),
        }
    )
    if n_boot:
        rows["low"], rows["high"] = mean_interval(effects, n_boot, seed)
    if n_flips:
        scale = max(1.0, float(np.abs(unpatched).max()))
        rows["p"] = max_t(effects, n_flips=n_flips, floor=floor * scale, seed=seed)
    rows["normalised"] = rows["mean"] / (other - unpatched).mean()
    rows["n"] = len(names)
    if placebo is not None:
        damage = placebo - unpatched
        rows["placebo_mean"] = damage.mean(-1)
        rows["beyond"] = (effects - damage).mean(-1)
        per_prompt["placebo"] = placebo.ravel()
        if n_boot:
            rows["placebo_low"], rows["placebo_high"] = mean_interval(damage, n_boot, seed)
            rows["beyond_low"], rows["beyond_high"] = mean_interval(effects - damage, n_boot, seed)
    return Effects(rows, per_prompt, model, model_digest, metric, plan, len(names))
