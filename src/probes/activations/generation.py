"""A model that writes, with its activations kept at every token that it reads while it does."""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probes.activations.collect import SHARD_BYTES, choose_sites
from probes.activations.engine import in_process, shard_file
from probes.activations.files import write_named, write_tensors
from probes.activations.format import Collection, GroupRecord, Manifest, PartRecord
from probes.activations.index import Index, find, read_index
from probes.activations.labels import labelling
from probes.activations.layout import Layout, lay_out
from probes.activations.origin import Extent, describe_origin
from probes.activations.place import clean, prepare
from probes.activations.publication import Request, extended, fill, make_maker, positive, publish
from probes.activations.sequences import TokenSequence, id_array, sequence_id, stream
from probes.activations.store import ActivationStore
from probes.behaviour.evaluate import SamplingConfig
from probes.behaviour.generation import Generated, generate, stopping
from probes.behaviour.sampling import check_room, check_sampling, cut, ending, written
from probes.foundation.artifact import disk_errors
from probes.foundation.errors import InputError, StageError
from probes.foundation.outputs import writes
from probes.foundation.progress import bar
from probes.foundation.provenance import provenance
from probes.foundation.seeds import stream as random_stream
from probes.models.anatomy import width
from probes.models.encoding import encode, token_batches
from probes.models.forward import check_lengths, context_length, why_not_finite
from probes.models.hooks import recording
from probes.models.loading import DTYPES, Model
from probes.models.sites import Site, parse_site
from probes.prompts.records import Prompt


@dataclasses.dataclass(frozen=True)
class Draw:
    """One completion to be drawn: the `sample`-th of a prompt. id: of its sequence, known before."""

    prompt: Prompt
    sample: int

    @property
    def id(self) -> bytes:
        return sequence_id(self.prompt, f"sample {self.sample}")


def write_and_record(
    model: Model,
    draws: Sequence[Draw],
    config: SamplingConfig,
    sites: tuple[str, ...],
    positions: str,
    dtype: str,
) -> tuple[list[TokenSequence], Layout, dict[str, Tensor]]:
    """Completions of these draws, what the model read of them, and its activations there."""
    encoded = encode([draw.prompt for draw in draws], model.tokenizer)
    check_lengths([len(ids) for ids in encoded], model.hf)
    check_room(max(map(len, encoded)), config.max_new_tokens, context_length(model.hf))
    stop = ending([draw.prompt for draw in draws], config.stop)
    stopped = stopping(model.hf, model.tokenizer, stop)
    lengths = [len(ids) + config.max_new_tokens for ids in encoded]
    generated: dict[int, Generated] = {}
    tapes: dict[int, _Tape] = {}
    for batch in token_batches(lengths, config.batch_tokens):
        streams = [
            random_stream(config.seed, "sample", draws[i].prompt.id, draws[i].sample) for i in batch
        ]
        uniforms = np.stack([numbers.random(config.max_new_tokens) for numbers in streams])
        with (
            torch.inference_mode(),
            _taping(model, sites, dtype, [encoded[i] for i in batch]) as (
                watch,
                own,
            ),
        ):
            found = generate(
                model.hf,
                [encoded[i] for i in batch],
                uniforms if config.temperature > 0 else None,
                max_new_tokens=config.max_new_tokens,
                temperature=config.temperature,
                pad_id=model.pad_id,
                stop=stopped,
                watch=watch,
            )
        generated |= zip(batch, found, strict=True)
        tapes |= zip(batch, own, strict=True)
    sequences = []
    for i, draw in enumerate(draws):
        new = generated[i].tokens
        text = cut(written(model, encoded[i], new), stop)
        read = new[: tapes[i].n_read - len(encoded[i])]
        tokens = np.array(encoded[i] + read, dtype=np.int32)
        sequences.append(
            TokenSequence(draw.id, draw.prompt, text, tokens, Extent(len(encoded[i]), len(tokens)))
        )
    layout = lay_out(sequences, positions)
    values = {
        site: torch.cat([tapes[i].rows(site, layout, i) for i in range(len(draws))])
        for site in sites
    }
    for site, rows in values.items():
        if not rows.isfinite().all():
            raise StageError(
                f"NaN or infinite activations at {site}: "
                f"{why_not_finite(model.dtype, rows.dtype)}. Nothing of these draws was kept."
            )
    return sequences, layout, values


class _Tape:
    """Activations of one sequence in the order in which the model read its tokens."""

    def __init__(self) -> None:
        self.pieces: dict[str, list[Tensor]] = {}
        self.n_read = 0

    def append(self, seen: Mapping[str, Tensor]) -> None:
        for site, rows in seen.items():
            self.pieces.setdefault(site, []).append(rows)
        self.n_read += len(next(iter(seen.values())))

    def rows(self, site: str, layout: Layout, index: int) -> Tensor:
        """What the layout keeps of this sequence."""
        kept = slice(int(layout.row_offsets[index]), int(layout.row_offsets[index + 1]))
        tape = torch.cat(self.pieces[site])
        return tape[torch.from_numpy(layout.position[kept].astype("int64"))]


@contextlib.contextmanager
def _taping(
    model: Model, sites: tuple[str, ...], dtype: str, prompts: Sequence[Sequence[int]]
) -> Iterator[tuple[Any, list[_Tape]]]:
    """A tape per sequence, filled by `watch` after each forward pass of a generation."""
    tapes = [_Tape() for _ in prompts]
    wanted = [parse_site(site, model.n_layers) for site in sites]
    stored = DTYPES[dtype]

    def select(found: Tensor) -> Tensor:
        return found.to(stored, copy=True)

    with recording(model.hf, wanted, select=select) as seen:

        def watch(rows: list[int]) -> None:
            on_cpu = {str(site): values.cpu() for site, values in seen.items()}
            for place, row in enumerate(rows):
                n_new = len(prompts[row]) if tapes[row].n_read == 0 else 1
                tapes[row].append({site: v[place, -n_new:] for site, v in on_cpu.items()})

        yield watch, tapes


POSITIONS = ("all", "prompt", "answer", "first_answer", "last_answer", "last")
CHUNK = 256


@writes("path")
def collect_generated(
    model: Model,
    prompts: Iterable[Prompt | str] | Prompt | Path | str,
    path: Path | str,
    sampling: SamplingConfig | None = None,
    *,
    sites: Iterable[Site | str] | None = None,
    positions: str = "answer",
    dtype: str = "float32",
    shard_bytes: int = SHARD_BYTES,
) -> ActivationStore:
    """Let the model continue each prompt, and keep its activations at the tokens that it read.

    sampling: as in `behaviour.sample`, whose completions these are, draw for draw. The last token
        drawn ends the completion and is never read, so it has no activations, unless the model
        went on from it to an ending token.
    positions: "answer" (the tokens written and read again), "all" with the prompt's, "prompt",
        "first_answer", "last_answer" or "last".
    The store gains its sequences a chunk at a time, so that an interrupted run loses one chunk. Of
    sequences that are there, sites that are lacking are computed from the tokens that were drawn.
    Texts lie in the column `completion`. Raises what `collect` and `sample` raise.
    """
    path = Path(path)
    config = sampling or SamplingConfig()
    if positions not in POSITIONS:
        raise InputError(
            f"positions of what is generated are {', '.join(POSITIONS)}; saw {positions!r}"
        )
    origin = describe_origin(
        model,
        positions=positions,
        spans=None,
        dtype=dtype,
        completions=True,
        sampling=config.model_dump(mode="json"),
    )
    chosen = choose_sites(model, sites)
    request = Request(
        model=model,
        path=path,
        origin=origin,
        widths={str(site): width(model.hf, site) for site in chosen},
        maker=make_maker(model, config.batch_tokens),
        shard_tokens=1,
        shard_bytes=positive("shard_bytes", shard_bytes),
        engine=in_process,
    )
    draws = [Draw(prompt, k) for prompt in stream(prompts) for k in range(config.n)]
    check_sampling(
        model,
        [draw.prompt for draw in draws],
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        n=config.n,
    )
    asked = id_array(b"".join(draw.id for draw in draws))
    if len(np.unique(asked)) < len(asked):
        raise InputError("a prompt is given twice; ask for several samples of it with `n`")
    with disk_errors(path):
        manifest = prepare(path, origin)
        known = read_index(path, manifest.parts).ids if manifest else id_array(b"")
        new = [draws[i] for i in np.flatnonzero(find(known, asked) < 0)]
        with bar(f"write and collect {model.name}", total=len(new)) as shown:
            for chunk in _chunks(request, config, new):
                manifest = _extend(request, config, manifest, chunk)
                shown.update(len(chunk))
        if manifest is None:
            raise StageError(f"nothing was collected into {path}")
        widths = {**manifest.widths, **request.widths}
        manifest = fill(request, manifest.model_copy(update={"widths": widths}), asked)
        clean(path, manifest)
    return ActivationStore.open(path, model.identity).select_ids(asked, list(request.widths))


def _chunks(
    request: Request, config: SamplingConfig, draws: Sequence[Draw]
) -> Iterator[list[Draw]]:
    """Draws in order, as many at a time as a shard may hold if every completion is long."""
    n_sites = request.model.n_layers + 1
    row_bytes = n_sites * request.model.d_model * DTYPES[request.origin.dtype].itemsize
    size = request.shard_bytes // (row_bytes * config.max_new_tokens)
    step = max(1, min(CHUNK, size))
    for start in range(0, len(draws), step):
        yield list(draws[start : start + step])


def _extend(
    request: Request, config: SamplingConfig, there: Manifest | None, chunk: Sequence[Draw]
) -> Manifest:
    """Draw one chunk and publish it as a part of its own."""
    path, model = request.path, request.model
    sequences, layout, values = write_and_record(
        model, chunk, config, tuple(request.widths), request.origin.positions, request.origin.dtype
    )
    layout_record = write_named(path, "layout", layout.to_bytes())
    file = shard_file(layout_record.sha256, list(values))
    makers = there.makers if there else ()
    if request.maker not in makers:
        makers = (*makers, request.maker)
    written = write_tensors(path / file, values)
    shard = written.shard(values, makers.index(request.maker))
    n_sequences = len(sequences)
    index = Index.of(layout.sequence_id, [(np.arange(n_sequences), layout)]).to_bytes()
    with labelling(path) as labels:
        labels.append(sequences)
        table = labels.finish()
    group = GroupRecord(
        n_sequences=n_sequences,
        n_rows=layout.n_rows,
        n_tokens=layout.n_tokens,
        layout=layout_record,
        shards=(shard,) if layout.n_rows else (),
    )
    part = PartRecord(
        n_sequences=n_sequences,
        n_rows=layout.n_rows,
        first_group=len(there.groups) if there else 0,
        prompts=table,
        index=write_named(path, "index", index),
        groups=(group,),
    )
    manifest = extended(request, there, part, makers)
    made = Collection(
        provenance=provenance(),
        n_new_sequences=n_sequences,
        n_shards_made=1,
        sites=tuple(request.widths),
    )
    return publish(path, manifest, made)
