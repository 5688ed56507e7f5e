"""Collect activations: each prompt once, only as deep as needed, nothing lost if interrupted."""

import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from probes.activations.format import (
    MANIFEST,
    PROMPT_COLUMNS,
    PROMPTS,
    PROVENANCE,
    SCHEMA_VERSION,
    VERSIONED,
    FileRecord,
    Finished,
    Manifest,
    ShardRecord,
    shard_name,
    sidecar,
)
from probes.activations.place import claimed, clean, is_finished
from probes.activations.shards import Layout, check_digest, lay_out, write_shard
from probes.activations.spec import Positions, Spec, specify
from probes.activations.store import ActivationStore
from probes.foundation.artifact import disk_errors, write_bytes, write_text
from probes.foundation.digest import digest_bytes, digest_json, short
from probes.foundation.errors import InputError, IntegrityError, StageError
from probes.foundation.progress import bar
from probes.foundation.provenance import provenance
from probes.models import forward
from probes.models.encoding import encode, pad, token_batches
from probes.models.hooks import recording
from probes.models.loading import DTYPES, Model
from probes.models.sites import Site, parse_site
from probes.prompts.records import Prompt


def collect(
    model: Model,
    prompts: Sequence[Prompt],
    path: Path | str,
    *,
    sites: Iterable[Site | str] | None = None,
    positions: Positions = "last",
    token_budget: int = 8192,
    dtype: str = "float32",
    shard_prompts: int = 256,
) -> ActivationStore:
    """Run the model over prompts and keep its residual stream in a store at `path`.

    sites: by default the residual stream at every layer. positions: "last" (the token after which
    the model takes over), "all", or a negative index. dtype: of the stored numbers.
    token_budget: padded tokens per forward pass. shard_prompts: prompts per file; one file at a
    time is held in memory, twice while it is written.

    Asked again for the same, it returns the finished store without a forward pass; after an
    interruption it goes on from the finished shards. Raises `InputError` where something else lies
    at `path`, and `StageError` for NaN or infinite activations, a full or a read-only disk.
    """
    path = Path(path)
    prompts = list(prompts)
    spec = specify(
        model,
        prompts,
        sites=sites,
        positions=positions,
        token_budget=token_budget,
        dtype=dtype,
        shard_prompts=shard_prompts,
    )
    with disk_errors(path), claimed(path):
        if not is_finished(path, spec):
            sequences = encode(prompts, model.tokenizer)
            forward.check_lengths([len(ids) for ids in sequences], model.hf)
            shards = _make_shards(model, prompts, sequences, path, spec)
            _finish(model, prompts, sequences, path, spec, shards)
        clean(path)
    return ActivationStore.open(path, model.weights_digest)


def _make_shards(
    model: Model,
    prompts: Sequence[Prompt],
    sequences: Sequence[list[int]],
    path: Path,
    spec: Spec,
) -> list[ShardRecord]:
    """Every shard of the spec, made now or found finished."""
    made_by = digest_json(
        {"key": spec.digest, "versions": _versions(), "device": model.device.type}
    )
    shards = []
    with bar("collect activations", total=sum(map(len, sequences))) as tokens:
        for index, first in enumerate(range(0, len(sequences), spec.shard_prompts)):
            members = sequences[first : first + spec.shard_prompts]
            record = _finished_shard(path, index, made_by)
            if record is None:
                layout = lay_out([len(ids) for ids in members], first, spec.positions)
                values = compute(model, members, layout, spec, prompts)
                record = write_shard(path / shard_name(index), layout, values)
                finished = Finished(made_by=made_by, shard=record)
                write_text(sidecar(path, index), finished.to_json())
            shards.append(record)
            tokens.update(sum(map(len, members)))
    return shards


def compute(
    model: Model,
    sequences: Sequence[list[int]],
    layout: Layout,
    spec: Spec,
    prompts: Sequence[Prompt],
) -> dict[str, Float[Tensor, "row d_model"]]:
    """The activations of one shard by site name, in the stored dtype, on the CPU."""
    sites = [parse_site(name, model.n_layers) for name in spec.sites]
    stored = DTYPES[spec.dtype]
    values = {site: torch.empty(layout.n_rows, model.d_model, dtype=stored) for site in sites}
    for members in token_batches([len(ids) for ids in sequences], spec.token_budget):
        batch = pad([sequences[member] for member in members], model.pad_id)
        slices = [layout.rows_of(member) for member in members]
        target = torch.cat([torch.arange(rows.start, rows.stop) for rows in slices])
        columns = layout.position[target].to(model.device)
        counts = torch.tensor([rows.stop - rows.start for rows in slices])
        rows = torch.arange(len(members)).repeat_interleave(counts).to(model.device)

        def select(residual: Tensor, rows: Tensor = rows, columns: Tensor = columns) -> Tensor:
            return residual[rows, columns]

        with torch.inference_mode(), recording(model.hf, sites, select=select, stop=True) as seen:
            forward.trunk(model.hf, batch)
        for site, found in seen.items():
            kept = found.to("cpu", stored)
            _refuse_not_finite(kept, found, site, layout, target, prompts)
            values[site][target] = kept
    return {str(site): value for site, value in values.items()}


def _refuse_not_finite(
    kept: Tensor,
    computed: Tensor,
    site: Site,
    layout: Layout,
    target: Tensor,
    prompts: Sequence[Prompt],
) -> None:
    finite = kept.isfinite().all(-1)
    if finite.all():
        return
    worst = int((~finite).nonzero()[0])
    row = int(target[worst])
    index = int(layout.prompt_index[row])
    cause = (
        f"they do not fit into {kept.dtype}; store them as float32 or bfloat16"
        if computed[worst].isfinite().all()
        else "the model itself is broken or its dtype overflows; nothing of this shard was kept"
    )
    raise StageError(
        f"NaN or infinite activations at {site}, token {int(layout.position[row])} of prompt "
        f"{index} (id {short(prompts[index].id)}, pair {prompts[index].pair!r}): {cause}"
    )


def _finished_shard(path: Path, index: int, made_by: str) -> ShardRecord | None:
    """The record of a shard that an earlier run finished, if every byte of it can be trusted."""
    if not sidecar(path, index).exists():
        return None
    try:
        finished = Finished.from_file(sidecar(path, index))
        if finished.made_by != made_by or finished.shard.file != shard_name(index):
            return None
        check_digest(path, finished.shard)
    except (InputError, IntegrityError):
        return None
    return finished.shard


def _finish(
    model: Model,
    prompts: Sequence[Prompt],
    sequences: Sequence[list[int]],
    path: Path,
    spec: Spec,
    shards: Sequence[ShardRecord],
) -> None:
    """Write the prompts table and the provenance, and then the manifest that makes it a store."""
    rows = [{**p.as_row(), "n_tokens": len(ids)} for p, ids in zip(prompts, sequences, strict=True)]
    buffer = io.BytesIO()
    pd.DataFrame(rows)[list(PROMPT_COLUMNS)].to_parquet(buffer, index=False)
    table = buffer.getvalue()
    write_bytes(path / PROMPTS, table)
    write_text(path / PROVENANCE, json.dumps(provenance(), indent=2) + "\n")
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        key=spec.digest,
        made_from=spec,
        model=model.name,
        n_layers=model.n_layers,
        d_model=model.d_model,
        n_prompts=len(prompts),
        n_rows=sum(shard.n_rows for shard in shards),
        versions=_versions(),
        prompts=FileRecord(file=PROMPTS, sha256=digest_bytes(table), bytes=len(table)),
        shards=tuple(shards),
    )
    write_text(path / MANIFEST, manifest.to_json())


def _versions() -> dict[str, str]:
    found: dict[str, Any] = provenance()["versions"]
    return {name: found[name] for name in VERSIONED}
