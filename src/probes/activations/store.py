"""Read an activation store: mapped from disk, and only together with the model that made it."""

import dataclasses
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from probes.activations.files import by_group, check_digest, check_size, take
from probes.activations.format import Manifest
from probes.activations.index import read_index
from probes.activations.labels import read_labels
from probes.activations.layout import Layout
from probes.activations.place import read_finished
from probes.activations.reading import ROW_COLUMNS, Activations, locate
from probes.foundation.digest import digest_json, short
from probes.foundation.errors import InputError, unknown
from probes.foundation.html import html_table
from probes.foundation.progress import progress
from probes.models.identity import Identity, check_same
from probes.models.sites import Site, parse_site


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ActivationStore(Activations):
    """Activations of sequences at sites of one model, as a store on disk holds them.

    A store opened from disk has all its sequences in the order in which they joined it; `collect`
    gives it as asked for, `where` a part of it. Nothing is read before it is needed.
    """

    path: Path
    manifest: Manifest
    members: np.ndarray | None = None
    narrowed: bool = False

    @classmethod
    def open(cls, path: Path | str, identity: Identity | None = None) -> "ActivationStore":
        """Open a store; with the `identity` of a model, only if exactly that model made it.

        Sizes of all files and the index are checked here, activations whenever a whole site is
        read, every byte by `verify`. Raises `InputError` where no store lies or another model made
        it, `IntegrityError` for a damaged one.
        """
        path = Path(path)
        manifest = read_finished(path)
        made_by = manifest.origin.of_model
        if identity is not None:
            check_same(
                made_by, identity, f"the activations at {path} are of",
                "Collect this model's own",
            )  # fmt: skip
        for record in manifest.files:
            check_size(path, record)
        for part in manifest.parts:
            check_digest(path, part.index)
        return cls(
            index=read_index(path, manifest.parts),
            model=manifest.model,
            identity=made_by,
            n_layers=manifest.n_layers,
            widths=_shared_widths(manifest, range(len(manifest.groups))),
            positions=manifest.origin.positions,
            path=path,
            manifest=manifest,
        )

    @property
    def key(self) -> str:
        """sha256 of what decides these numbers: the origin, the sequences in order, the sites."""
        return digest_json(
            {
                "origin": self.manifest.origin.digest,
                "sequences": digest_json([i.hex() for i in self.index.ids.tolist()]),
                "sites": list(self.widths),
            }
        )

    @cached_property
    def prompts(self) -> pd.DataFrame:
        """Labels, one row per sequence in order: see docs/reference/activation-store.md for the columns."""
        for part in self.manifest.parts:
            check_digest(self.path, part.prompts)
        table = read_labels([self.path / part.prompts.file for part in self.manifest.parts])
        if self.members is None:
            return table
        return table.iloc[self.members].reset_index(drop=True)

    @cached_property
    def row_index(self) -> pd.DataFrame:
        """What each row is: prompt_index, position, token and n_averaged, in order of the rows."""
        group, row = self._places
        table: dict[str, np.ndarray] = {
            "prompt_index": np.repeat(np.arange(len(self)), self.index.n_rows),
            "position": np.empty(len(row), dtype=np.int32),
            "token": np.empty(len(row), dtype=np.int32),
            "n_averaged": np.empty(len(row), dtype=np.int32),
        }
        records = self.manifest.groups
        for number, here in by_group(group):
            check_digest(self.path, records[number].layout)
            layout = Layout.from_file(self.path / records[number].layout.file)
            table["position"][here] = layout.position[row[here]]
            table["n_averaged"][here] = layout.n_averaged[row[here]]
            table["token"][here] = layout.row_tokens()[row[here]]
        return pd.DataFrame(table).astype(ROW_COLUMNS)

    def where(self, chosen: Any) -> "ActivationStore":
        """These sequences only, without reading any: a boolean mask over `prompts`, or its rows."""
        return self._view(self._chosen(chosen))

    def select_ids(self, asked: np.ndarray, sites: Iterable[str]) -> "ActivationStore":
        """These sequences by id, in this order, at these sites."""
        places = locate(self.index, asked)
        whole = len(places) == len(self) and bool((places == np.arange(len(self))).all())
        view = self if whole else self._view(places)
        return view.at(sites)

    def at(self, sites: Iterable[Site | str]) -> "ActivationStore":
        """These sites only, in order of depth."""
        names = {self._name(site) for site in sites}
        kept = {name: shape for name, shape in self.widths.items() if name in names}
        return dataclasses.replace(self, widths=kept, narrowed=True)

    def verify(self) -> "ActivationStore":
        """Check every byte against the manifest; raises `IntegrityError` naming the file."""
        for record in progress(self.manifest.files, "verify activations"):
            check_digest(self.path, record)
        return self

    def _view(self, chosen: np.ndarray) -> "ActivationStore":
        members = chosen if self.members is None else self.members[chosen]
        index = self.index.take(chosen)
        widths = self.widths
        if not self.narrowed:
            widths = _shared_widths(self.manifest, np.unique(index.group).tolist())
        return dataclasses.replace(self, index=index, members=members, widths=widths)

    def _name(self, site: Site | str) -> str:
        name = str(parse_site(str(site), self.n_layers))
        if name not in self.widths and name in self.manifest.widths:
            lacking = sum(
                name not in self.manifest.groups[number].sites
                for number in np.unique(self.index.group)
            )
            if lacking:
                raise InputError(
                    f"{lacking} groups of these sequences have no {name}: collect it for all of "
                    "them (only the difference is computed), or choose with `where`"
                )
        if name not in self.widths:
            raise unknown("site in this store", name, self.widths)
        return name

    def _take(self, name: str, group: np.ndarray, row: np.ndarray) -> Tensor:
        return take(self.path, self.manifest, name, group, row)

    def facts(self) -> dict[str, str]:
        """What a reader wants to know at a glance, in order."""
        origin = self.manifest.origin
        names = list(self.widths)
        return {
            "store": str(self.path),
            "model": f"{self.model} (weights {short(origin.weights_digest)})",
            "sequences": f"{len(self):,}",
            "sites": f"{names[0]} to {names[-1]} ({len(names)})" if names else "none in all",
            "positions": f"{origin.positions} ({self.n_rows:,} rows)",
            "width": ", ".join(sorted({"x".join(map(str, w)) for w in self.widths.values()})),
            "dtype": f"{origin.dtype} (computed in {origin.compute_dtype})",
            **(
                {
                    "left out of means": f"attention sinks, norm above {origin.sinks.limit:,.0f} at {origin.sinks.site}"
                }
                if origin.sinks
                else {}
            ),
            "size": f"{self.manifest.n_bytes / 2**20:.1f} MiB",
            "key": short(self.key),
        }

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}={value}" for name, value in self.facts().items())
        return f"ActivationStore({facts})"

    def _repr_html_(self) -> str:
        return html_table(self.facts())


def _shared_widths(manifest: Manifest, groups: Iterable[int]) -> dict[str, tuple[int, ...]]:
    """Sites that each of these groups has, in order of depth; groups without rows have any."""
    records = manifest.groups
    shared = set(manifest.widths)
    for number in groups:
        if records[number].n_rows:
            shared &= records[number].sites
    ordered = sorted(shared, key=lambda name: parse_site(name, manifest.n_layers).order)
    return {name: manifest.widths[name] for name in ordered}
