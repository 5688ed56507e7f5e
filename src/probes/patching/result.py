"""The grid as a reader gets it: tidy rows, frozen, with what made them."""

import dataclasses
import html
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from probes.foundation.digest import short
from probes.foundation.seeds import stream
from probes.models.sites import Site
from probes.patching.ranking import largest_first
from probes.patching.spans import Column

LEVEL = 0.95


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PatchGrid:
    """Effects of patching the triggered run into the untriggered one, by site and position.

    rows: one per cell: `site`, `layer` (0 = embeddings, k = after block k), `column`, `label`,
        `mean` (nats: patched minus corrupted, mean over pairs), `low`, `high` (bootstrap 95%;
        absent without bootstrap), `normalised` (mean / mean of clean minus corrupted; 0 = nothing
        restored, 1 = all), `n` (pairs).
    per_prompt: one per cell and pair: `site`, `layer`, `column`, `label`, `pair`, `patched`,
        `effect`, `clean`, `corrupted` (nats).
    """

    rows: pd.DataFrame
    per_prompt: pd.DataFrame
    labels: tuple[str, ...]
    sites: tuple[str, ...]
    clean: float
    corrupted: float
    n_pairs: int
    model: str
    model_digest: str

    def matrix(self, value: str = "normalised") -> Float[np.ndarray, "site column"]:
        """One measure as an array: sites from the bottom up, columns from left to right."""
        return self.rows[value].to_numpy(float).reshape(len(self.sites), len(self.labels))

    def strongest(self, n: int = 5) -> pd.DataFrame:
        """The cells with the largest effects."""
        return largest_first(self.rows)[:n].reset_index(drop=True)

    def __repr__(self) -> str:
        best = self.strongest(1).iloc[0]
        return (
            f"PatchGrid({self._what()}; strongest: {best['site']} at {best['label']!r}, "
            f"{best['normalised']:.0%} restored)"
        )

    def _repr_html_(self) -> str:
        effects = self.matrix()
        limit = max(float(np.abs(effects).max()), 1e-12)
        head = "".join(f"<th>{html.escape(label)}</th>" for label in self.labels)
        body = "".join(
            f"<tr><th>{html.escape(site)}</th>"
            + "".join(
                f"<td style='background:{_shade(x / limit)}'>{x:.2f}</td>" for x in effects[i]
            )
            + "</tr>"
            for i, site in reversed(list(enumerate(self.sites)))
        )
        return (
            f"<table style='font-size:85%'><caption>Share restored: {html.escape(self._what())}"
            f"</caption><tr><th></th>{head}</tr>{body}</table>"
        )

    def _what(self) -> str:
        return (
            f"{self.model} ({short(self.model_digest)}), {self.n_pairs} pairs, "
            f"{len(self.sites)} sites x {len(self.labels)} columns, "
            f"clean {self.clean:+.2f} nats, corrupted {self.corrupted:+.2f}"
        )


def summarise(
    *,
    model: str,
    model_digest: str,
    names: Sequence[str],
    sites: Sequence[Site],
    columns: Sequence[Column],
    clean: Float[np.ndarray, "pair"],
    corrupted: Float[np.ndarray, "pair"],
    patched: Float[np.ndarray, "site column pair"],
    n_boot: int,
    seed: int,
) -> PatchGrid:
    """Tables and intervals from the measured numbers (nats)."""
    effects = patched - corrupted
    mean = effects.mean(-1)
    labels = [column.label for column in columns]
    table: dict[str, object] = {
        "site": np.repeat([str(site) for site in sites], len(labels)),
        "layer": np.repeat([site.depth for site in sites], len(labels)),
        "column": np.tile(np.arange(len(labels)), len(sites)),
        "label": labels * len(sites),
        "mean": mean.ravel(),
    }
    cells = pd.DataFrame(table)
    per_prompt = cells.drop(columns="mean").loc[cells.index.repeat(len(names))]
    per_prompt = per_prompt.reset_index(drop=True).assign(
        pair=list(names) * len(cells),
        patched=patched.ravel(),
        effect=effects.ravel(),
        clean=np.tile(clean, len(cells)),
        corrupted=np.tile(corrupted, len(cells)),
    )
    if n_boot:
        low, high = mean_interval(effects, n_boot, seed)
        cells = cells.assign(low=low.ravel(), high=high.ravel())
    cells = cells.assign(normalised=cells["mean"] / (clean - corrupted).mean(), n=len(names))
    return PatchGrid(
        rows=cells,
        per_prompt=per_prompt,
        labels=tuple(labels),
        sites=tuple(str(site) for site in sites),
        clean=float(clean.mean()),
        corrupted=float(corrupted.mean()),
        n_pairs=len(names),
        model=model,
        model_digest=model_digest,
    )


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
