"""Some rows of some sites of a store, a piece at a time, each with what it is of."""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from probes.activations.store import ActivationStore
from probes.activations.taking import take
from probes.models.sites import Site

PIECE_BYTES = 32 << 20
ROW_COLUMNS = ("prompt_index", "position", "token", "n_averaged")


@dataclasses.dataclass(frozen=True, eq=False)
class Selection:
    """store: with the chosen sites only. rows: numbers of the chosen rows, in order."""

    store: ActivationStore
    rows: np.ndarray

    @property
    def names(self) -> list[str]:
        """Sites, in order of depth."""
        return list(self.store.widths)

    def width(self, name: str) -> int:
        """Numbers per row; the heads of z lie side by side."""
        return int(np.prod(self.store.widths[name]))

    @cached_property
    def row_index(self) -> pd.DataFrame:
        """What each chosen row is: `prompt_index`, `position`, `token`, `n_averaged`."""
        return self.store.row_index.iloc[self.rows].reset_index(drop=True)

    @property
    def facts(self) -> dict[str, str]:
        """Where the numbers come from, to travel with them."""
        manifest = self.store.manifest
        return {
            "model": manifest.model,
            "origin": json.dumps(manifest.origin.model_dump(mode="json"), sort_keys=True),
            "sites": json.dumps(self.names),
            "store_key": self.store.key,
        }

    def pieces(self) -> Iterator[slice]:
        """The rows in pieces of bounded size, counted over all chosen sites."""
        row_bytes = 4 * sum(self.width(name) for name in self.names)
        step = max(1, PIECE_BYTES // row_bytes)
        for start in range(0, len(self.rows), step):
            yield slice(start, min(start + step, len(self.rows)))

    def values(self, name: str, piece: slice) -> Tensor:
        """`[n, width]` in the stored dtype."""
        return self.store.to_torch(name, self.rows[piece])

    def numbers(self, name: str, piece: slice) -> np.ndarray:
        """The same for numpy, which has no bfloat16: float32 holds it exactly."""
        found = self.values(name, piece)
        return (found.float() if found.dtype == torch.bfloat16 else found).numpy()

    def labelled(self, piece: slice) -> pd.DataFrame:
        """Labels of the sequence of each row, and what the row is."""
        index = self.row_index.iloc[piece].reset_index(drop=True)
        labels = self.store.prompts.iloc[index["prompt_index"]].reset_index(drop=True)
        return pd.concat([labels, index], axis=1)

    def check(self) -> None:
        """Compare the bytes of these sites with their checksums; raises `IntegrityError`.

        Rows that are read singly are not checked on the way, and a copy must be right.
        """
        for number in np.unique(self.store.index.group).tolist():
            n_rows = self.store.manifest.groups[number].n_rows
            for name in self.names if n_rows else ():
                group = np.full(n_rows, number)
                take(self.store.path, self.store.manifest, name, group, np.arange(n_rows))


def select(
    store: ActivationStore, sites: Iterable[Site | str] | None, position: int | None
) -> Selection:
    """Every row of these sites (None: of all), or one row per sequence at `position`.

    position: as in `ActivationStore.matrix`.
    """
    rows = np.arange(store.n_rows) if position is None else store._row_of_each(position)
    return Selection(
        store=store if sites is None else store.at(sites),
        rows=np.arange(store.n_rows) if rows is None else rows,
    )
