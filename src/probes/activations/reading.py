"""One way to read activations, wherever they lie: matrices for probes, with labels beside them."""

import abc
import dataclasses
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from probes.activations.index import Index, find
from probes.activations.origin import is_one_each
from probes.foundation.errors import InputError, unknown
from probes.foundation.shapes import Rows
from probes.models.identity import Identity
from probes.models.loading import Model
from probes.models.sinks import refuse_only_sinks, sink_masks
from probes.models.sites import Site, parse_site

if TYPE_CHECKING:
    import xarray

ROW_COLUMNS = {
    "prompt_index": "int64",
    "position": "int32",
    "token": "int32",
    "n_averaged": "int32",
}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Activations(abc.ABC):
    """Rows of activations, sequence after sequence and token after token, with what they are of.

    index: where the rows of each sequence lie. model, identity, n_layers: what made them.
    widths: shape of a row by site: `(d_model,)`, or `(n_heads, d_head)` for z.
    positions: which tokens were kept.
    """

    index: Index
    model: str
    identity: Identity
    n_layers: int
    widths: dict[str, tuple[int, ...]]
    positions: str

    @property
    @abc.abstractmethod
    def prompts(self) -> pd.DataFrame:
        """Labels, one row per sequence in order: prompt_id, pair, prompt_set, triggered, ..."""

    @property
    @abc.abstractmethod
    def row_index(self) -> pd.DataFrame:
        """What each row is: `prompt_index` (row of `prompts`), `position` (its first token),
        `token` (id; -1 for a mean) and `n_averaged` (tokens that it is the mean of)."""

    @abc.abstractmethod
    def where(self, chosen: Any) -> "Activations":
        """These sequences only, without reading any: a boolean mask over `prompts`, or its rows."""

    @abc.abstractmethod
    def _take(self, name: str, group: np.ndarray, row: np.ndarray) -> Tensor:
        """Rows of one site, `[len(row), width]`, in the stored dtype, from these places."""

    @property
    def sites(self) -> list[Site]:
        """Sites in order of depth."""
        return [parse_site(name, self.n_layers) for name in self.widths]

    @property
    def n_rows(self) -> int:
        return int(self.index.n_rows.sum())

    def __len__(self) -> int:
        """Sequences; the sites are `keys()`."""
        return len(self.index)

    def __getitem__(self, site: Site | str) -> Rows:
        """The rows of a site: `matrix` where every sequence has one, else `rows`."""
        return self.matrix(site) if is_one_each(self.positions) else self.rows(site)

    def __contains__(self, site: object) -> bool:
        return str(site) in self.widths

    def __iter__(self) -> Iterator[str]:
        return iter(self.widths)

    def keys(self) -> list[str]:
        """Names of the sites in order of depth; `dict(activations)` holds all their rows."""
        return list(self.widths)

    def matrix(
        self, site: Site | str, position: int | None = None, *, head: int | None = None
    ) -> Rows:
        """One row per sequence, `[n, width]`, in the order of `prompts`.

        position: where several tokens were kept, which of them: counted from the first one kept, or
            from the last if negative. head: one attention head of z.
        float16 stays float16; bfloat16 comes as float32, which holds it exactly.
        """
        return _to_numpy(self.to_torch(site, self._row_of_each(position), head=head))

    def rows(self, site: Site | str, *, head: int | None = None) -> Rows:
        """Every row, `[n_rows, width]`, by sequence and then by token; see `row_index`."""
        return _to_numpy(self.to_torch(site, head=head))

    def tokens(self, site: Site | str, sequence: int, *, head: int | None = None) -> Rows:
        """The rows of one sequence, `[n_kept, width]`, read without the rest."""
        if not 0 <= sequence < len(self):
            raise InputError(f"no prompt {sequence}: there are 0 to {len(self) - 1}")
        first = int(self.index.first_row[sequence])
        rows = np.arange(first, first + int(self.index.n_rows[sequence]))
        group = np.full(len(rows), self.index.group[sequence])
        return _to_numpy(self._head(site, self._take(self._name(site), group, rows), head))

    def sinks(self, model: Model) -> Bool[np.ndarray, "row"]:
        """Which rows are attention sinks of the model that made them.

        Known of sequences whose kept tokens start with their first ("all", "prompt"); a mean is none,
        and neither is a token whose sequence is kept from later on. A model without sinks is not run.
        """
        found = np.zeros(self.n_rows, dtype=bool)
        if model.sinks.rule is None:
            return found
        counts = self.index.n_rows.astype(np.int64)
        index = self.row_index
        ids, first = index["token"].to_numpy(), counts.cumsum() - counts
        starts = index["position"].to_numpy()
        whole = [i for i in np.flatnonzero(counts) if starts[first[i]] == 0 <= ids[first[i]]]
        rows = [slice(int(first[i]), int(first[i] + counts[i])) for i in whole]
        for each, mask in zip(
            rows, sink_masks(model, [ids[r].tolist() for r in rows]), strict=True
        ):
            found[each] = mask
        return found

    def sequences(
        self, site: Site | str, model: Model | None = None, *, keep_sinks: bool = False
    ) -> list[Rows]:
        """The rows of each sequence, `[n_kept, width]` each: what `AttentionProbe` reads.

        model: the one that made them, to leave its attention sinks out unless `keep_sinks`.
        Raises `InputError` where no token of a sequence is left.
        """
        rows = self.rows(site)
        kept = np.ones(len(rows), dtype=bool)
        if not keep_sinks:
            if model is None:
                raise InputError(
                    "give the model, to leave its attention sinks out, or keep_sinks=True"
                )
            kept = ~self.sinks(model)
        ends = self.index.n_rows.astype(np.int64).cumsum()[:-1]
        found = [
            one[mask] for one, mask in zip(np.split(rows, ends), np.split(kept, ends), strict=True)
        ]
        if empty := [i for i, one in enumerate(found) if not len(one)]:
            raise refuse_only_sinks(f"sequence {empty[0]}")
        return found

    def to_torch(
        self, site: Site | str, rows: np.ndarray | None = None, *, head: int | None = None
    ) -> Tensor:
        """Rows of one site in the stored dtype, `[n, width]`; all of them, or those in `rows`."""
        group, row = self._places
        if rows is not None:
            group, row = group[rows], row[rows]
        return self._head(site, self._take(self._name(site), group, row), head)

    def to_pandas(self, site: Site | str | None = None) -> pd.DataFrame:
        """One row per row: labels, position and token; with a site, its features as columns."""
        index = self.row_index
        labels = self.prompts.iloc[index["prompt_index"]].reset_index(drop=True)
        table = pd.concat([labels, index], axis=1)
        if site is None:
            return table
        values = self.rows(site)
        names = [f"{self._name(site)}[{i}]" for i in range(values.shape[1])]
        return pd.concat([table, pd.DataFrame(values, columns=names)], axis=1)

    def to_xarray(self, sites: Sequence[Site | str] | None = None) -> "xarray.DataArray":
        """A labelled array `[site, row, feature]` of sites of one width; needs xarray.

        Coordinates of a row are the columns of `to_pandas()`. By default every site.
        """
        try:
            import xarray
        except ImportError as error:
            raise InputError('xarray is not here: pip install "probes[xarray]"') from error
        names = [self._name(site) for site in (self.widths if sites is None else sites)]
        flat = {name: int(np.prod(self.widths[name])) for name in names}
        if len(set(flat.values())) != 1:
            raise InputError(f"an array needs sites of one width; these have {flat}")
        coordinates = {
            name: ("row", column.to_numpy()) for name, column in self.to_pandas().items()
        }
        return xarray.DataArray(
            np.stack([self.rows(name) for name in names]),
            dims=("site", "row", "feature"),
            coords={"site": names, **coordinates},
            attrs={"model": self.model, "positions": self.positions},
        )

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """Group and row in the group of every row."""
        counts = self.index.n_rows.astype(np.int64)
        starts = counts.cumsum() - counts
        within = np.arange(int(counts.sum())) - np.repeat(starts, counts)
        return (
            np.repeat(self.index.group, counts),
            np.repeat(self.index.first_row.astype(np.int64), counts) + within,
        )

    def _row_of_each(self, position: int | None) -> np.ndarray | None:
        counts = self.index.n_rows.astype(np.int64)
        starts = counts.cumsum() - counts
        if position is None:
            if (counts == 1).all():
                return None
            several, none = int((counts > 1).sum()), int((counts == 0).sum())
            raise InputError(
                f"these activations hold {self.positions!r}: {several} sequences have several rows "
                f"and {none} have none. Choose one with `position=-1`, leave sequences out with "
                "`where`, or use `rows` and `row_index`, or `tokens` for one sequence"
            )
        if is_one_each(self.positions):
            raise InputError(
                f"these activations hold one position per prompt ({self.positions}); `position` "
                "chooses among several, collected for instance with positions='all'"
            )
        wanted = np.where(position >= 0, position, counts + position)
        bad = np.flatnonzero((wanted < 0) | (wanted >= counts))
        if len(bad):
            raise InputError(
                f"{len(bad)} prompts have no token at position {position}; the first is prompt "
                f"{bad[0]} with {counts[bad[0]]} tokens kept"
            )
        return starts + wanted

    def _name(self, site: Site | str) -> str:
        name = str(parse_site(str(site), self.n_layers))
        if name not in self.widths:
            raise unknown("site in this store", name, self.widths)
        return name

    def _head(self, site: Site | str, values: Tensor, head: int | None) -> Tensor:
        if head is None:
            return values
        shape = self.widths[self._name(site)]
        if len(shape) != 2:
            raise InputError(f"{site} has no heads; `head` is for z")
        if not 0 <= head < shape[0]:
            raise InputError(f"no head {head}: {site} has heads 0 to {shape[0] - 1}")
        return values[:, head * shape[1] : (head + 1) * shape[1]]

    def _chosen(self, chosen: Any) -> np.ndarray:
        """Rows of `prompts` from a mask or from numbers, checked."""
        array = np.asarray(chosen)
        if array.size == 0:
            return np.zeros(0, dtype=np.int64)
        if array.dtype == bool:
            if array.shape != (len(self),):
                raise InputError(f"a mask of shape {array.shape} for {len(self)} sequences")
            return np.flatnonzero(array)
        if array.dtype.kind not in "iu" or array.ndim != 1:
            raise InputError("choose sequences with a boolean mask or with integers")
        if len(outside := array[(array < 0) | (array >= len(self))]):
            raise InputError(f"sequences are 0 to {len(self) - 1}; asked for {outside[0]}")
        return array


def locate(index: Index, asked: np.ndarray) -> np.ndarray:
    """Places of these ids in an index; raises `InputError` for one that is not there."""
    places = find(index.ids, asked)
    if len(absent := np.flatnonzero(places < 0)):
        raise InputError(
            f"{len(absent)} of {len(asked)} sequences are not in this store; the first is number "
            f"{absent[0]}"
        )
    return places


def _to_numpy(values: Tensor) -> Rows:
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
