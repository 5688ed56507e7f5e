"""What patching found: effects by cell or path, the largest first, whatever their sign."""

import dataclasses
import html
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from probes.evaluation.sign_flips import max_t
from probes.foundation.digest import short
from probes.foundation.html import html_table, html_text
from probes.foundation.seeds import stream
from probes.models.loading import Model
from probes.patching.continuations import Written
from probes.patching.measures import Metric
from probes.patching.pairs import EncodedPair
from probes.patching.parts import EVERYWHERE, Cell
from probes.patching.refusals import TOLERANCE
from probes.patching.sources import Plan


def largest_first(rows: pd.DataFrame, by: str = "mean") -> pd.DataFrame:
    """All rows by the size of one column, ties in the order they stand in; row numbers are kept."""
    return rows.loc[rows[by].abs().sort_values(ascending=False, kind="stable").index]


LEVEL = 0.95


def mean_interval(
    values: Float[np.ndarray, "*cell pair"], n_boot: int, seed: int
) -> tuple[Float[np.ndarray, "*cell"], Float[np.ndarray, "*cell"]]:
    """Percentile bootstrap 95% interval of the mean over pairs, all cells resampled alike."""
    n_pairs = values.shape[-1]
    draws = stream(seed, "patching", "bootstrap").multinomial(
        n_pairs, np.full(n_pairs, 1 / n_pairs), size=n_boot
    )
    means = values @ (draws.T / n_pairs)
    edge = (1 - LEVEL) / 2
    low, high = np.quantile(means, [edge, 1 - edge], axis=-1)
    return low, high


def _shade(share: float) -> str:
    """White at 0, red at 1, blue at -1."""
    fade = round(255 * (1 - min(abs(share), 1.0)))
    return f"rgb(255,{fade},{fade})" if share >= 0 else f"rgb({fade},{fade},255)"


BEST = 15


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Ranked:
    """Rows with an effect each, `mean`, of one model; the largest are shown first."""

    rows: pd.DataFrame
    per_prompt: pd.DataFrame
    model: str
    model_digest: str

    def strongest(self, n: int = 5) -> pd.DataFrame:
        """The rows with the largest effects."""
        return largest_first(self.rows)[:n].reset_index(drop=True)

    def significant(self, level: float = 0.05) -> pd.DataFrame:
        """The rows whose corrected p is at most `level`, strongest first."""
        return largest_first(self.rows[self.rows["p"] <= level])

    def _repr_html_(self) -> str:
        text = f"{self._what()}; the strongest:"
        return html_table(self.strongest(BEST), text, floats="{:.3g}")

    def _what(self) -> str:
        return f"{self.model} ({short(self.model_digest)})"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Effects(Ranked):
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
    written: what the model writes with its strongest cells patched, where that was asked for.
    """

    metric: str
    plan: Plan
    n_pairs: int
    written: Written | None = None

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites in the order of the rows."""
        return tuple(dict.fromkeys(self.rows["site"]))

    @property
    def clean(self) -> float:
        """The metric of the triggered run, mean over pairs."""
        return float(self.per_prompt["unpatched" if self.plan.runs_clean else "other"].mean())

    @property
    def corrupted(self) -> float:
        """The metric of the untriggered run, mean over pairs."""
        return float(self.per_prompt["other" if self.plan.runs_clean else "unpatched"].mean())

    def matrix(self, value: str = "normalised", columns: str = "column") -> pd.DataFrame:
        """One measure with sites as rows, from the bottom up, and columns (or "head") across."""
        table = self.rows.pivot_table(index="site", columns=columns, values=value, sort=False)
        return table.loc[list(self.sites)]

    def __repr__(self) -> str:
        best = self.strongest(1).iloc[0]
        head = "" if pd.isna(best["head"]) else f" head {int(best['head'])}"
        said = (
            f"{type(self).__name__}({self._what()}; strongest: {best['site']}{head} at "
            f"{best['label']!r}, {best['normalised']:.0%} of the difference)"
        )
        return said if self.written is None else f"{said}\n{self.written!r}"

    def _repr_html_(self) -> str:
        rows, more = self.rows, ""
        if self.written is not None:
            more = html_text("Written") + self.written._repr_html_()
        if rows["head"].isna().all() and (rows["column"] != EVERYWHERE).all():
            return self._shaded() + more
        return super()._repr_html_() + more

    def _shaded(self) -> str:
        """Sites upward and columns across, the share of the difference in each cell and in its colour."""
        labels = self.rows.drop_duplicates("column").sort_values("column")["label"]
        effects = self.matrix()
        limit = max(float(effects.abs().to_numpy().max()), 1e-12)
        head = "".join(f"<th>{html.escape(label)}</th>" for label in labels)
        body = "".join(
            f"<tr><th>{html.escape(site)}</th>"
            + "".join(f"<td style='background:{_shade(x / limit)}'>{x:.2f}</td>" for x in shares)
            + "</tr>"
            for site, shares in reversed(list(zip(self.sites, effects.to_numpy(), strict=True)))
        )
        return (
            f"<table style='font-size:85%'><caption>Share restored: {html.escape(self._what())}"
            f"</caption><tr><th></th>{head}</tr>{body}</table>"
        )

    def _what(self) -> str:
        return (
            f"{super()._what()}, {self.n_pairs} pairs, {len(self.rows)} "
            f"cells, {self.plan.direction} with {self.plan.values} values, clean {self.clean:+.2f}, "
            f"corrupted {self.corrupted:+.2f}"
        )


def summarise(
    model: Model,
    metric: Metric,
    plan: Plan,
    pairs: Sequence[EncodedPair],
    cells: Sequence[Cell],
    *,
    unpatched: Float[np.ndarray, "pair"],
    other: Float[np.ndarray, "pair"],
    patched: Float[np.ndarray, "cell pair"],
    placebo: Float[np.ndarray, "cell pair"] | None = None,
    n_boot: int,
    n_flips: int,
    seed: int,
) -> Effects:
    """Tables, intervals and corrected p from the measured numbers."""
    effects, names = patched - unpatched, [pair.name for pair in pairs]
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
        rows["p"] = max_t(effects, n_flips=n_flips, floor=TOLERANCE[model.dtype] * scale, seed=seed)
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
    return Effects(rows, per_prompt, model.name, model.digest, metric.name, plan, len(names))


SENDER = {
    "site": "sender", "layer": "sender_layer", "head": "sender_head", "column": "sender_column",
    "label": "sender_label",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Paths(Ranked):
    """Effects of patching paths, in the metric's unit.

    rows: one per path: `sender`, `sender_layer`, `sender_head`, `sender_column`, `sender_label`;
        `reader` (kind), `reader_layer`, `reader_head`, `reader_label`; `mean`, `low`, `high`, `p`,
        `normalised`, `n` as in `Effects`.
    per_prompt: one per path and pair: `path` (row number), `pair`, `patched`, `effect`, `unpatched`,
        `other`.
    through_mlps: whether MLPs in between answered to the change.
    """

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

    def _what(self) -> str:
        held = "MLPs between answer" if self.through_mlps else "all else held"
        return (
            f"{super()._what()}, {self.n_pairs} pairs, {len(self.rows)} "
            f"paths, {self.plan.direction} with {self.plan.values} values, {held}"
        )
