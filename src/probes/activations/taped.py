"""A model that writes, with its activations kept at every token that it reads while it does."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probes.activations.layout import Layout, lay_out
from probes.activations.positions import Extent
from probes.activations.sequences import TokenSequence, sequence_id
from probes.behaviour.evaluate import SamplingConfig
from probes.behaviour.generation import Generated, generate, stopping
from probes.behaviour.sampling import check_room, cut, ending, written
from probes.foundation.errors import StageError
from probes.foundation.seeds import stream as random_stream
from probes.models.encoding import encode, token_batches
from probes.models.forward import check_lengths, context_length, why_not_finite
from probes.models.hooks import recording
from probes.models.loading import DTYPES, Model
from probes.models.sites import parse_site
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
    layout = lay_out(
        [sequence.id for sequence in sequences],
        [sequence.tokens for sequence in sequences],
        [sequence.extent for sequence in sequences],
        positions,
    )
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
