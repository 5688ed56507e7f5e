"""What path patching found, as a reader gets it: one row per path, with what chance would do."""

import dataclasses
import html

import pandas as pd

from probes.foundation.digest import short
from probes.patching.found import Effects
from probes.patching.ranking import largest_first, significant
from probes.patching.sources import Plan

BEST = 15
SENDER = {
    "site": "sender", "layer": "sender_layer", "head": "sender_head", "column": "sender_column",
    "label": "sender_label",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Paths:
    """Effects of patching paths, in the metric's unit.

    rows: one per path: `sender`, `sender_layer`, `sender_head`, `sender_column`, `sender_label`;
        `reader` (kind), `reader_layer`, `reader_head`, `reader_label`; `mean`, `low`, `high`, `p`,
        `normalised`, `n` as in `Effects`.
    per_prompt: one per path and pair: `path` (row number), `pair`, `patched`, `effect`, `unpatched`,
        `other`.
    through_mlps: whether MLPs in between answered to the change.
    """

    rows: pd.DataFrame
    per_prompt: pd.DataFrame
    model: str
    model_digest: str
    metric: str
    plan: Plan
    n_pairs: int
    through_mlps: bool

    @staticmethod
    def of(effects: Effects, ends: pd.DataFrame, through_mlps: bool) -> "Paths":
        """Paths from the effects of their senders, row by row, and the readers at their ends."""
        whole = effects.rows.rename(columns=SENDER)
        rows = pd.concat(
            [whole[list(SENDER.values())], ends, whole.drop(columns=list(SENDER.values()))], axis=1
        )
        return Paths(
            rows, effects.per_prompt.rename(columns={"cell": "path"}), effects.model,
            effects.model_digest, effects.metric, effects.plan, effects.n_pairs, through_mlps,
        )  # fmt: skip

    def strongest(self, n: int = 5) -> pd.DataFrame:
        """The paths with the largest effects."""
        return largest_first(self.rows)[:n].reset_index(drop=True)

    def significant(self, level: float = 0.05) -> pd.DataFrame:
        """The paths whose corrected p is at most `level`, strongest first."""
        return significant(self.rows, level)

    def __repr__(self) -> str:
        best = self.strongest(1).iloc[0]
        head = "" if pd.isna(best["sender_head"]) else f" head {int(best['sender_head'])}"
        end = best["reader"]
        for name in ("reader_layer", "reader_head"):
            end += "" if pd.isna(best[name]) else f".{int(best[name])}"
        return (
            f"Paths({self._what()}; strongest: {best['sender']}{head} at {best['sender_label']!r} -> "
            f"{end}, {best['normalised']:.0%} of the difference)"
        )

    def _repr_html_(self) -> str:
        table = self.strongest(BEST).to_html(index=False, float_format=lambda x: f"{x:.3g}")
        return f"<p>{html.escape(self._what())}; the strongest paths:</p>{table}"

    def _what(self) -> str:
        held = "MLPs between answer" if self.through_mlps else "all else held"
        return (
            f"{self.model} ({short(self.model_digest)}), {self.n_pairs} pairs, {len(self.rows)} "
            f"paths, {self.plan.direction} with {self.plan.values} values, {held}"
        )
