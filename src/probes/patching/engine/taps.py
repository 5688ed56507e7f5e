"""Reach into a block: what attention keeps to itself, and what of a block need not be run.

Keys and values are reached through the cache, queries and patterns through the attention function. Keys and
queries are those that meet in the dot product, after rotary embeddings and norms. Patching them from the same
position of another run is the same as patching them before.
Attention that did not change is not run again, and of the last block what nobody reads is not; the parts that are
run are the model's own modules. Whether a model's blocks can be cut so is seen in a whole run; where they
cannot, they are run uncut.
"""

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.masking_utils import eager_mask

from probes.foundation.errors import InputError
from probes.models.anatomy import ATTENTION, blocks, find, missing
from probes.models.sites import Site

NAME = "probes_tapped"
Heads = Float[Tensor, "batch head pos d_head"]
Pattern = Float[Tensor, "batch head query key"]
Act = Callable[[Tensor], Tensor]
"""Gets `[batch, pos, ...]` as `Kept.at` has it and returns what to go on with; the input is not written to."""


def turned(act: Act) -> Act:
    """For a tensor that has its heads before its positions."""
    return lambda found: act(found.transpose(1, 2)).transpose(1, 2)


def by_head(act: Act, n_heads: int) -> Act:
    """For a site that the model has flat, one head behind another."""
    return lambda found: act(found.unflatten(-1, (n_heads, -1))).flatten(2)


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


# The axis along which a block's arguments have one entry per position; of others none is known.
POSITIONS = {
    "attention_mask": -2,
    "position_ids": -1,
    "position_embeddings": -2,
    "cache_position": -1,
}


@contextlib.contextmanager
def replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Another forward for one module inside the block."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward


def can_be_cut(hf: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether every tensor that the last block is given, behind the stream, can be cut by positions.

    Not where the MLP sees flattened tokens, whose shape hooks take from the block's whole input.
    """
    site = Site("mlp_out", len(blocks(hf)) - 1)
    if "mlp_out" not in missing(hf) and find(hf, [site])[site].shaped_by is not None:
        return False
    block = blocks(hf)[-1]
    given = _named(block, args[1:] if args else args, kwargs, skip=bool(args))
    return all(
        name in POSITIONS or name == "hidden_states"
        for name, value in given.items()
        for part in (value if isinstance(value, tuple) else (value,))
        if isinstance(part, Tensor)
    )


@contextlib.contextmanager
def reading_last(block: nn.Module, n_lead: int, cache: RunCache) -> Iterator[None]:
    """Run of the last block no more than the keys and values in the first `n_lead` slots.

    It gives zeros there, because what follows it expects all slots.
    """
    own = block.forward

    def cut(*args: Any, **kwargs: Any) -> Any:
        stream = args[0] if args else kwargs.pop("hidden_states")
        given = _named(block, args[1:], kwargs, skip=True)

        def part(slots: slice) -> dict[str, Any]:
            return {
                name: _sliced(value, POSITIONS[name], slots) if name in POSITIONS else value
                for name, value in given.items()
            }

        with cache.catching():
            own(stream[:, :n_lead].contiguous(), **part(slice(None, n_lead)))
        return own(stream[:, n_lead:].contiguous(), **part(slice(n_lead, None)))

    def widened(_: nn.Module, __: object, output: Any) -> Any:
        found = output[0] if isinstance(output, tuple) else output
        wide = torch.cat([found.new_zeros(len(found), n_lead, found.shape[2]), found], 1)
        return (wide, *output[1:]) if isinstance(output, tuple) else wide

    with replaced(block, cut):
        handle = block.register_forward_hook(widened)
        try:
            yield
        finally:
            handle.remove()


@contextlib.contextmanager
def attended(hf: Any, layer: int, z: Tensor) -> Iterator[None]:
    """Give what the heads of one block computed before, instead of computing it."""
    projection = find(hf, [Site("z", layer)])[Site("z", layer)].module

    def given(*_: Any, **__: Any) -> Any:
        return projection(z), None

    with replaced(_attention(blocks(hf)[layer]), given):
        yield


@contextlib.contextmanager
def ends_in_projection(hf: Any) -> Iterator[list[bool]]:
    """Note for each block whether its attention returns what its output projection gives, and a second thing."""
    found: list[bool] = []
    handles = []
    if "z" not in missing(hf):
        for layer, block in enumerate(blocks(hf)):
            seen: list[Tensor] = []
            place = find(hf, [Site("z", layer)])[Site("z", layer)]

            def keep(_: nn.Module, __: object, output: Tensor, seen: list[Tensor] = seen) -> None:
                seen.append(output)

            def compare(_: nn.Module, __: object, output: Any, seen: list[Tensor] = seen) -> None:
                pair = isinstance(output, tuple) and len(output) == 2 and len(seen) == 1
                found.append(pair and torch.equal(output[0], seen.pop()))

            handles.append(place.module.register_forward_hook(keep))
            handles.append(_attention(block).register_forward_hook(compare))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _attention(block: nn.Module) -> nn.Module:
    parts = dict(block.named_children())
    return next(parts[name] for name in ATTENTION if name in parts)


def _named(
    block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, skip: bool
) -> dict[str, Any]:
    """A block's arguments by name. skip: the first name, of the stream, is not among them."""
    names = list(inspect.signature(type(block).forward).parameters)[1 + skip :]
    return dict(zip(names, args, strict=False)) | kwargs


def _sliced(value: Any, axis: int, slots: slice) -> Any:
    if isinstance(value, tuple):
        return tuple(_sliced(part, axis, slots) for part in value)
    if not isinstance(value, Tensor):
        return value
    index = [slice(None)] * value.ndim
    index[axis] = slots
    return value[tuple(index)]
