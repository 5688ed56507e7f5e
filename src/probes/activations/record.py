"""Activations in memory: the same numbers as a store's, for a session that needs no disk."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from probes.activations.collect import TOKEN_BUDGET, choose_sites
from probes.activations.compute import Job, compute
from probes.activations.index import Index
from probes.activations.labels import label_table
from probes.activations.layout import groups, lay_out
from probes.activations.origin import describe_origin, first_row_tokens, is_one_each
from probes.activations.publication import positive
from probes.activations.reading import ROW_COLUMNS, Activations
from probes.activations.sequences import Distinct, TokenSequence, pieces, stream, tokenise
from probes.foundation.errors import InputError
from probes.foundation.html import html_table
from probes.foundation.progress import bar
from probes.models.anatomy import kinds, width
from probes.models.loading import Model
from probes.models.sites import Site, all_sites
from probes.prompts.records import Prompt

GROUP_TOKENS = 1 << 16


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Recorded(Activations):
    """Activations that lie in memory, read like a store.

    values: by site, `[n_rows, width]`, in the order of the rows. labels: see `prompts`.
    origins: see `row_index`.
    """

    values: dict[str, Tensor]
    labels: pd.DataFrame
    origins: pd.DataFrame

    @property
    def prompts(self) -> pd.DataFrame:
        return self.labels

    @property
    def row_index(self) -> pd.DataFrame:
        return self.origins

    def where(self, chosen: Any) -> "Recorded":
        """These sequences only, copied: a boolean mask over `prompts`, or its rows."""
        places = self._chosen(chosen)
        index = self.index.take(places)
        counts = index.n_rows.astype(np.int64)
        starts = counts.cumsum() - counts
        rows = np.arange(int(counts.sum())) + np.repeat(index.first_row - starts, counts)
        origins = self.origins.iloc[rows].reset_index(drop=True)
        origins["prompt_index"] = np.repeat(np.arange(len(places)), index.n_rows)
        return dataclasses.replace(
            self,
            index=dataclasses.replace(index, first_row=starts),
            values={name: value[torch.from_numpy(rows)] for name, value in self.values.items()},
            labels=self.labels.iloc[places].reset_index(drop=True),
            origins=origins,
        )

    def _take(self, name: str, group: np.ndarray, row: np.ndarray) -> Tensor:
        if len(row) == len(self.values[name]) and bool((row == np.arange(len(row))).all()):
            return self.values[name]
        return self.values[name][torch.from_numpy(row)]

    def __repr__(self) -> str:
        return (
            f"Recorded({len(self):,} sequences, {self.n_rows:,} rows of {self.positions}, "
            f"{len(self.widths)} sites of {self.model})"
        )

    def _repr_html_(self) -> str:
        facts = {"model": self.model, "sequences": len(self), "sites": ", ".join(self)}
        return html_table(facts | {"positions": self.positions, "rows": self.n_rows})


def record(
    model: Model,
    prompts: Iterable[Prompt | str] | Prompt | Path | str,
    *,
    sites: Iterable[Site | str] | None = None,
    positions: str | int = "last",
    spans: Mapping[str, str] | None = None,
    completions: Iterable[str] | None = None,
    allow_missing: bool = False,
    dtype: str = "float32",
    token_budget: int = TOKEN_BUDGET,
    keep_sinks: bool = False,
) -> Recorded:
    """Run the model over prompts and keep what it computes in memory; arguments as in `collect`.

    prompts: also one prompt, or bare texts: `record(model, "Hello there")`.

    Nothing is kept between calls. For many prompts, or for results to rest on, use `collect`.
    """
    origin = describe_origin(
        model, positions=positions, spans=spans, dtype=dtype, completions=completions is not None,
        keep_sinks=keep_sinks,
    )  # fmt: skip
    chosen = choose_sites(model, sites)
    positive("token_budget", token_budget)
    sequences: list[TokenSequence] = []
    distinct = Distinct()
    for piece, texts in pieces(stream(prompts), completions):
        numbers = len(sequences) + np.arange(len(piece))
        taken = tokenise(model, origin, piece, texts, numbers, allow_missing)
        distinct.add(taken, numbers)
        sequences += taken
    distinct.check()
    if not sequences:
        raise InputError("no prompts to record activations for")
    counts = np.array([first_row_tokens(origin.positions, s.extent)[2] for s in sequences])
    starts = np.concatenate([[0], counts.cumsum()[:-1]])
    widths = {str(site): width(model.hf, site) for site in chosen}
    lengths = np.array([len(sequence.tokens) for sequence in sequences])
    values: dict[str, Tensor] = {}
    origins = np.empty((int(counts.sum()), 4), dtype=np.int64)
    with bar(f"record {model.name}", total=int(lengths.sum())) as shown:
        for members in groups(
            lengths, counts, is_one_each(origin.positions), GROUP_TOKENS, GROUP_TOKENS
        ):
            layout = lay_out([sequences[i] for i in members], origin.positions)
            found = compute(model, Job(layout, tuple(widths), dtype, token_budget, origin.sinks))
            each = np.diff(layout.row_offsets)
            within = np.arange(layout.n_rows) - np.repeat(layout.row_offsets[:-1], each)
            target = np.repeat(starts[members], each) + within
            for name, rows in found.items():
                room = values.setdefault(name, rows.new_empty(len(origins), rows.shape[1]))
                room.index_copy_(0, torch.from_numpy(target), rows)
            origins[target] = np.stack(
                [
                    np.repeat(members, each),
                    layout.position,
                    layout.row_tokens(),
                    layout.n_averaged,
                ],
                axis=1,
            )
            shown.update(layout.n_tokens)
    return Recorded(
        index=_index(sequences, counts, starts),
        model=model.name,
        identity=model.identity,
        n_layers=model.n_layers,
        widths=widths,
        positions=origin.positions,
        values=values,
        labels=label_table(sequences),
        origins=pd.DataFrame(origins, columns=list(ROW_COLUMNS)).astype(ROW_COLUMNS),
    )


def record_runs(
    model: Model,
    prompts: Sequence[Prompt | str],
    sites: Sequence[Site | str] | None = None,
) -> Recorded:
    """Activations of whole prompts, token by token, to look at and to patch from (`Model.run`).

    sites: by default every site that the architecture has. The tokens of one prompt at one site are
    `tokens(site, number)`; a site alone gives those of all prompts, one prompt after the other.
    """
    chosen = all_sites(model.n_layers, kinds(model.hf)) if sites is None else sites
    return record(model, list(prompts), sites=chosen, positions="all", keep_sinks=True)


def _index(sequences: list[TokenSequence], counts: np.ndarray, starts: np.ndarray) -> Index:
    ids = b"".join(sequence.id for sequence in sequences)
    return Index(
        sequence_id=np.frombuffer(ids, dtype=np.uint8).reshape(-1, 32),
        group=np.zeros(len(sequences), dtype=np.int32),
        first_row=starts.astype(np.int64),
        n_rows=counts.astype(np.int32),
        n_tokens=np.array([s.extent.n_tokens for s in sequences], dtype=np.int32),
        n_prompt_tokens=np.array([s.extent.n_prompt for s in sequences], dtype=np.int32),
    )
