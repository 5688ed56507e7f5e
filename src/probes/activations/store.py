"""Read an activation store: memory-mapped, and only together with the weights that made it."""

import dataclasses
import html
import io
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors
import torch
from torch import Tensor

from probes.activations.format import MANIFEST, SCHEMA_VERSION, UNFINISHED, Manifest
from probes.activations.shards import check_digest, check_size
from probes.foundation.digest import short
from probes.foundation.errors import InputError, IntegrityError, unknown
from probes.foundation.progress import progress
from probes.foundation.shapes import Rows
from probes.models.sites import Site, parse_site


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ActivationStore:
    """Activations of prompts at sites of one model, as a finished store on disk holds them.

    prompts: one row per prompt, in the order of `matrix` rows: prompt_id, pair, prompt_set, family,
        template, triggered, heldout, n_tokens.
    """

    path: Path
    manifest: Manifest
    prompts: pd.DataFrame

    @classmethod
    def open(cls, path: Path | str, weights_digest: str | None = None) -> "ActivationStore":
        """Open a finished store; with `weights_digest`, only if exactly those weights made it.

        Sizes of all files are checked here, every byte by `verify`. Raises `InputError` where no
        finished store lies or other weights made it, `IntegrityError` for a damaged one.
        """
        path = Path(path)
        manifest = read_manifest(path)
        if manifest is None:
            state = (
                "its collection was interrupted; run the same collection again to finish it"
                if (path / UNFINISHED).exists()
                else f"there is no {MANIFEST}"
            )
            raise InputError(f"no finished activation store at {path}: {state}")
        made_by = manifest.made_from.weights_digest
        if weights_digest is not None and weights_digest != made_by:
            raise InputError(
                f"the activations at {path} were made by other weights: the store by {made_by} "
                f"({manifest.model}), asked for {weights_digest}. Collect this model's own."
            )
        for record in (manifest.prompts, *manifest.shards):
            check_size(path, record)
        check_digest(path, manifest.prompts)
        table = pd.read_parquet(io.BytesIO((path / manifest.prompts.file).read_bytes()))
        return cls(path, manifest, table)

    @cached_property
    def sites(self) -> list[Site]:
        """Sites in order of depth."""
        return [parse_site(name, self.manifest.n_layers) for name in self.manifest.made_from.sites]

    @property
    def positions(self) -> str | int:
        return self.manifest.made_from.positions

    def matrix(self, site: Site | str, position: int | None = None) -> Rows:
        """One row per prompt, `[n_prompts, d_model]`, in the order of `prompts`.

        position: only for a store of all positions: the token of each prompt to take, counted from
            the start, or from the end if negative.
        float16 stays float16; bfloat16 comes as float32, which holds it exactly.
        """
        if self.positions != "all":
            if position is not None:
                raise InputError(
                    f"this store holds one position per prompt ({self.positions}); `position` "
                    "chooses among all, from a store collected with positions='all'"
                )
            return self.rows(site)
        if position is None:
            raise InputError(
                "this store holds all positions: choose one with `position=-1`, or use `rows` and "
                "`row_index`, or `tokens` for one prompt"
            )
        index = self._rows_at(position)
        return self.rows(site)[index]

    def rows(self, site: Site | str) -> Rows:
        """Every stored row, `[n_rows, d_model]`, by prompt and then by token; see `row_index`."""
        return _to_numpy(torch.cat(list(self._read(self._name(site)))))

    @cached_property
    def row_index(self) -> pd.DataFrame:
        """Which prompt (row of `prompts`) and which token each row of `rows` is."""
        return pd.DataFrame(
            {
                name: torch.cat(list(self._read(name))).numpy()
                for name in ("prompt_index", "position")
            }
        )

    def tokens(self, site: Site | str, prompt_index: int) -> Rows:
        """The stored tokens of one prompt, `[n_stored, d_model]`, read without the rest."""
        name = self._name(site)
        if not 0 <= prompt_index < self.manifest.n_prompts:
            raise InputError(
                f"no prompt {prompt_index}: this store has 0 to {self.manifest.n_prompts - 1}"
            )
        shard = self.manifest.shards[prompt_index // self.manifest.made_from.shard_prompts]
        member = prompt_index - shard.first_prompt
        with safetensors.safe_open(self.path / shard.file, framework="pt") as file:
            start, stop = file.get_slice("offsets")[member : member + 2].tolist()
            return _to_numpy(file.get_slice(name)[start:stop].clone())

    def verify(self) -> "ActivationStore":
        """Check every byte against the manifest; raises `IntegrityError` naming the file."""
        for shard in progress(self.manifest.shards, "verify activations"):
            check_digest(self.path, shard)
        return self

    def _name(self, site: Site | str) -> str:
        name = str(parse_site(str(site), self.manifest.n_layers))
        if name not in self.manifest.made_from.sites:
            raise unknown("site in this store", name, self.manifest.made_from.sites)
        return name

    def _read(self, name: str) -> Iterator[Tensor]:
        for shard in self.manifest.shards:
            try:
                with safetensors.safe_open(self.path / shard.file, framework="pt") as file:
                    yield file.get_tensor(name)
            except safetensors.SafetensorError as error:
                raise IntegrityError(f"{self.path / shard.file} is damaged: {error}") from error

    def _rows_at(self, position: int) -> np.ndarray:
        lengths = self.prompts["n_tokens"].to_numpy()
        wanted = position if position >= 0 else lengths + position
        bad = np.flatnonzero((wanted < 0) | (wanted >= lengths))
        if len(bad):
            raise InputError(
                f"{len(bad)} prompts have no token at position {position}; the first is prompt "
                f"{bad[0]} with {lengths[bad[0]]} tokens"
            )
        starts = np.concatenate([[0], lengths.cumsum()[:-1]])
        return starts + wanted

    def facts(self) -> dict[str, str]:
        """What a reader wants to know at a glance, in order."""
        spec = self.manifest.made_from
        n_triggered = int(self.prompts["triggered"].sum())
        return {
            "store": str(self.path),
            "model": f"{self.manifest.model} (weights {short(spec.weights_digest)})",
            "prompts": f"{self.manifest.n_prompts:,} ({n_triggered:,} triggered)",
            "sites": f"{spec.sites[0]} to {spec.sites[-1]} ({len(spec.sites)})",
            "positions": f"{spec.positions} ({self.manifest.n_rows:,} rows)",
            "d_model": str(self.manifest.d_model),
            "dtype": f"{spec.dtype} (computed in {spec.compute_dtype})",
            "size": f"{sum(shard.bytes for shard in self.manifest.shards) / 2**20:.1f} MiB",
            "key": short(self.manifest.key),
        }

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}={value}" for name, value in self.facts().items())
        return f"ActivationStore({facts})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{name}</th><td>{html.escape(value)}</td></tr>"
            for name, value in self.facts().items()
        )
        return f"<table>{rows}</table>"


def read_manifest(path: Path) -> Manifest | None:
    """The manifest of a finished store, or None where there is none."""
    file = path / MANIFEST
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text())
    except ValueError as error:
        raise IntegrityError(f"{file} is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise IntegrityError(f"{file} is not a JSON object")
    kind, version = found.get("kind"), found.get("schema_version")
    if (kind, version) != ("activations", SCHEMA_VERSION):
        raise IntegrityError(
            f"{file} is kind {kind!r}, schema version {version!r}; this package reads "
            f"'activations', version {SCHEMA_VERSION}. Collect again with this version of it."
        )
    try:
        manifest = Manifest.from_file(file)
    except InputError as error:
        raise IntegrityError(str(error)) from error
    if manifest.key != manifest.made_from.digest:
        raise IntegrityError(
            f"{file} was edited: its key {short(manifest.key)} is not the digest of `made_from`, "
            f"{short(manifest.made_from.digest)}"
        )
    return manifest


def _to_numpy(values: Tensor) -> Rows:
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
