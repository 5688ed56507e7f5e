"""A key-value cache that is written in place: concatenating costs most of a small model's time."""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from probes.foundation.errors import InputError, StageError
from probes.models.encoding import pad
from probes.models.forward import why_not_finite


class ReservedLayer(DynamicLayer):
    """transformers' growing layer with room for `capacity` positions taken once.

    `keys` and `values` are views of the filled part, `[batch, heads, pos, d_head]`.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self._room: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append new positions and return all so far; raises `IndexError` past the capacity."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if end > self.capacity:
            raise IndexError(f"the cache has room for {self.capacity} positions, not {end}")
        if self._room is None:
            self._room = (self._reserve(key_states), self._reserve(value_states))
        self._room[0][..., start:end, :] = key_states
        self._room[1][..., start:end, :] = value_states
        self._show(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows of the batch only."""
        if self._room is None:
            return
        end = self.get_seq_length()
        self._room = (self._room[0][indices], self._room[1][indices])
        self._show(end)

    def _reserve(self, states: Tensor) -> Tensor:
        return states.new_empty((*states.shape[:-2], self.capacity, states.shape[-1]))

    def _show(self, end: int) -> None:
        assert self._room is not None
        self.keys = self._room[0][..., :end, :]
        self.values = self._room[1][..., :end, :]


def reserved_cache(hf: Any, capacity: int) -> DynamicCache:
    """An empty cache for one batch: full-attention layers reserved, others growing as ever."""
    cache = DynamicCache(config=hf.config)
    cache.layers = [
        ReservedLayer(capacity) if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


WORTH_COMPACTING = 0.75


@dataclasses.dataclass(frozen=True)
class Generated:
    """New tokens of one row, the ending token left out; whether it ended before the limit."""

    tokens: list[int]
    finished: bool


@dataclasses.dataclass(frozen=True)
class Stopping:
    """When a row has ended: at an ending token, or where its text contains a string.

    candidates: `[d_vocab]`, tokens whose text could complete `text`; only these are decoded.
    """

    eos: frozenset[int]
    text: str | None
    candidates: frozenset[int]
    tokenizer: Any

    def ended(self, tokens: list[int]) -> bool:
        """Whether these new tokens contain the stop string, which one token ago they did not."""
        if self.text is None or tokens[-1] not in self.candidates:
            return False
        tail = tokens[-(len(self.text.encode()) + 4) :]
        return self.text in self.tokenizer.decode(tail, clean_up_tokenization_spaces=False)


def stopping(hf: Any, tokenizer: Any, text: str | None) -> Stopping:
    """Ending tokens of the checkpoint (there may be several), its tokenizer, and a stop string."""
    if text == "":
        raise InputError("the stop string is empty; give None to stop at ending tokens only")
    configured = getattr(hf.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    eos = frozenset(int(i) for i in (*ids, tokenizer.eos_token_id) if i is not None)
    vocab_size = int(hf.config.get_text_config().vocab_size)
    return Stopping(eos, text, _candidates(tokenizer, text, vocab_size), tokenizer)


def _candidates(tokenizer: Any, text: str | None, vocab_size: int) -> frozenset[int]:
    if text is None:
        return frozenset()
    last = text[-1]
    if not (last.isascii() and last.isprintable()) or last.isspace():
        return frozenset(range(vocab_size))
    vocab: dict[str, int] = tokenizer.get_vocab()
    return frozenset(index for piece, index in vocab.items() if last in piece or "<0x" in piece)


@torch.inference_mode()
def generate(
    hf: Any,
    sequences: Sequence[Sequence[int]],
    uniforms: Float[np.ndarray, "batch step"] | None,
    *,
    max_new_tokens: int,
    temperature: float,
    pad_id: int,
    stop: Stopping,
    watch: Callable[[list[int]], None] | None = None,
    shared: bool = False,
) -> list[Generated]:
    """Continue one batch of token sequences, left-padded, with a cache.

    shared: read equal sequences once, then continue each on its own; not where a hook tells rows apart.
    uniforms: numbers in [0, 1), one per row and step, that decide the draw from the whole
        distribution at `temperature`; None for the most likely token.
    watch: called after each forward pass with the sequence that each row of it continues: first
        all prompts, then one new token per row. Sequences that ended may linger in it.
    Raises `StageError` if the model gives a logit that is not finite.
    """
    read: dict[tuple[int, ...], int] = {}
    places = [read.setdefault(tuple(each), len(read)) for each in sequences]
    shared = shared and len(read) < len(sequences)
    batch = pad(list(read) if shared else sequences, pad_id, side="left").to(hf.device)
    mask, position_ids, tokens = batch.mask, batch.position_ids, batch.tokens
    capacity = tokens.shape[1] + max_new_tokens
    cache = reserved_cache(hf, capacity)
    accepted = inspect.signature(hf.forward).parameters
    new: list[list[int]] = [[] for _ in sequences]
    finished = [False] * len(sequences)
    rows = list(range(len(sequences)))  # which sequence each row of the running batch continues
    for step in range(max_new_tokens):
        inputs = {
            "input_ids": tokens,
            "attention_mask": mask,
            "position_ids": position_ids,
            "past_key_values": cache,
            "use_cache": True,
            "logits_to_keep": 1,
        }
        out = hf(**{name: value for name, value in inputs.items() if name in accepted})
        if watch is not None:
            watch(rows)
        logits = out.logits[:, -1].float()
        if shared and not step:
            each = torch.tensor(places, device=tokens.device)
            cache.batch_select_indices(each)
            logits, mask, position_ids = logits[each], mask[each], position_ids[each]
        if not bool(torch.isfinite(logits).all()):
            raise StageError(
                f"the model gave logits that are not finite at new token {step + 1}, so nothing was "
                f"sampled: {why_not_finite(out.logits.dtype)}"
            )
        drawn = _draw(logits, None if uniforms is None else uniforms[rows, step], temperature)
        alive = []
        for place, (row, token) in enumerate(zip(rows, drawn.tolist(), strict=True)):
            if finished[row]:
                continue
            if token in stop.eos:
                finished[row] = True
                continue
            new[row].append(token)
            finished[row] = stop.ended(new[row])
            if not finished[row]:
                alive.append(place)
        if not alive:
            break
        tokens = drawn[:, None]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        position_ids = position_ids[:, -1:] + 1
        if len(alive) <= WORTH_COMPACTING * len(rows):
            kept = torch.tensor(alive, device=tokens.device)
            cache.batch_select_indices(kept)
            tokens, mask, position_ids = tokens[kept], mask[kept], position_ids[kept]
            rows = [rows[place] for place in alive]
    return [Generated(tokens, done) for tokens, done in zip(new, finished, strict=True)]


def _draw(
    logits: Float[Tensor, "batch d_vocab"],
    uniforms: Float[np.ndarray, "batch"] | None,
    temperature: float,
) -> Int[Tensor, "batch"]:
    """The most likely token, or the one in whose share of the cumulative distribution u falls."""
    if uniforms is None:
        return logits.argmax(-1)
    cumulative = (logits.double() / temperature).softmax(-1).cumsum(-1)
    u = torch.from_numpy(uniforms).to(cumulative) * cumulative[:, -1]
    drawn = torch.searchsorted(cumulative, u[:, None], right=True)[:, 0]
    return drawn.clamp(max=logits.shape[-1] - 1)
