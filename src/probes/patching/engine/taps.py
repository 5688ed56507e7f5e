"""Reach what attention keeps to itself: keys and values through the cache, queries and patterns through
the attention function.

Keys and queries are those that meet in the dot product, after rotary embeddings and norms. Patching
them from the same position of another run is the same as patching them before.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.masking_utils import eager_mask

from probes.foundation.errors import InputError

NAME = "probes_tapped"
Heads = Float[Tensor, "batch head pos d_head"]
Pattern = Float[Tensor, "batch head query key"]


class CaughtError(Exception):
    """Ends a block as soon as its keys and values are there."""


class RunCache(DynamicCache):
    """Keys and values of one forward pass: those of a prefix in front of those that are computed.

    prefix: per layer, keys and values `[batch, head, pos, d_head]`; None for a whole run. keep: hold
    on to what is computed. edit: gets ("k" or "v", layer, computed) and returns what to use.
    """

    def __init__(
        self,
        prefix: Callable[[int], tuple[Tensor, Tensor]] | None = None,
        *,
        keep: bool = False,
        edit: Callable[[str, int, Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self._prefix = prefix
        self._keep = keep
        self._edit = edit
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._catching = False
        self._caught: tuple[Tensor, Tensor] | None = None

    @contextlib.contextmanager
    def catching(self) -> Iterator[None]:
        """Run a block up to its keys and values; they stand before those of its next run."""
        self._catching = True
        try:
            yield
        except CaughtError:
            return
        finally:
            self._catching = False
        raise InputError("this block gives no keys and values to a cache")

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        if self._catching:
            self._caught = key_states, value_states
            raise CaughtError
        if self._caught is not None:
            keys, values = self._caught
            key_states, value_states = (
                torch.cat([keys, key_states], 2),
                torch.cat([values, value_states], 2),
            )
            self._caught = None
        if self._edit is not None:
            key_states = self._edit("k", layer_idx, key_states)
            value_states = self._edit("v", layer_idx, value_states)
        if self._keep:
            self.kept[layer_idx] = key_states, value_states
        if self._prefix is None:
            return key_states, value_states
        keys, values = self._prefix(layer_idx)
        if not keys.shape[2]:
            return key_states, value_states
        return torch.cat([keys, key_states], 2), torch.cat([values, value_states], 2)


class Taps:
    """What to do with queries and patterns while a forward pass runs.

    queries, patterns: by layer, called with the tensor; return None to leave it as it is. A layer
    without a pattern tap keeps the model's own attention kernel.
    """

    def __init__(self) -> None:
        self.queries: dict[int, Callable[[Heads], Heads | None]] = {}
        self.patterns: dict[int, Callable[[Pattern], Pattern | None]] = {}


_ACTIVE: list[tuple[Taps, str]] = []


@contextlib.contextmanager
def tapping(hf: Any, taps: Taps) -> Iterator[None]:
    """Run the model's attention through `taps` inside the block; the setting is put back after it."""
    config = hf.config.get_text_config()
    own = config._attn_implementation
    if own not in ("eager", "sdpa"):
        raise InputError(
            f"queries and patterns cannot be reached with attention {own!r}: load the model with "
            "eager or sdpa attention"
        )
    _ACTIVE.append((taps, own))
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = own
        _ACTIVE.pop()


def _tapped(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **given: Any
) -> tuple[Tensor, Tensor | None]:
    taps, own = _ACTIVE[-1]
    layer = int(module.layer_idx)
    if (edit := taps.queries.get(layer)) is not None:
        changed = edit(query)
        query = query if changed is None else changed
    if (look := taps.patterns.get(layer)) is None:
        eager = sys.modules[type(module).__module__].eager_attention_forward
        attend = AttentionInterface().get_interface(own, eager)
        found: tuple[Tensor, Tensor | None] = attend(module, query, key, value, mask, **given)
        return found
    if given.get("s_aux") is not None or given.get("position_bias") is not None:
        raise InputError("attention with sinks or a position bias has no pattern to patch here")
    pattern = _pattern(query, key, mask, given.get("scaling"), given.get("softcap"))
    changed = look(pattern)
    pattern = pattern if changed is None else changed
    return (pattern @ _shared(value, query)).transpose(1, 2).contiguous(), pattern


def _pattern(
    query: Tensor, key: Tensor, mask: Tensor | None, scaling: float | None, softcap: float | None
) -> Pattern:
    """Softmax of the scores, in float32 as the models' own eager attention takes it."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = (query @ _shared(key, query).transpose(2, 3)) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores + mask[..., : key.shape[2]]
    return scores.softmax(-1, dtype=torch.float32).to(query.dtype)


def _shared(keys: Tensor, query: Tensor) -> Tensor:
    """Key or value heads repeated for the query heads that share them."""
    return keys.repeat_interleave(query.shape[1] // keys.shape[1], dim=1)


AttentionInterface.register(NAME, _tapped)
# Without a mask of its own, transformers would build none for this name.
AttentionMaskInterface.register(NAME, eager_mask)
