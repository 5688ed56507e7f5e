"""What of a block need not be run: attention that did not change, and, in the last block, what nobody reads.

The parts that are run are the model's own modules. Whether a model's blocks can be cut so is seen in
a whole run; where they cannot, they are run uncut.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from probes.models.anatomy import ATTENTION, blocks, find, missing
from probes.models.sites import Site
from probes.patching.engine.taps import RunCache

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
