"""Attach a function to a place in a model, whatever shape the module there sees its tokens in."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from probes.models.anatomy import Place

# Gets `[batch, pos, width]`; returns what the model shall go on with, or None for what it has.
Act = Callable[[Tensor], Tensor | None]


def attach(place: Place, act: Act) -> list[RemovableHandle]:
    """Call `act` with the activation at `place` in every forward pass, until the handles go.

    What `act` reads is the contribution to the stream (multiplied by `place.scale`), and what it
    returns is put back as such.
    """
    handles = []
    if place.shaped_by is not None:
        act, note = _shaped(act)
        handles.append(place.shaped_by.register_forward_pre_hook(note, with_kwargs=True))
    if place.scale != 1:
        act = _scaled(act, place.scale)

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        changed = act(_input(args, kwargs))
        if changed is None:
            return None
        if args:
            return (changed, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": changed}

    def after(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        changed = act(_output(output))
        if changed is None:
            return None
        return (changed, *output[1:]) if isinstance(output, tuple | list) else changed

    if place.at_input:
        handles.append(place.module.register_forward_pre_hook(before, with_kwargs=True))
    else:
        handles.append(place.module.register_forward_hook(after))
    return handles


@contextlib.contextmanager
def carrying_on(mid: Place, mlp_out: Place, post: Place) -> Iterator[None]:
    """Let the output of a block follow an edit of what its MLP reads.

    A hook on the MLP's side of the block changes what the MLP reads, while the block adds the MLP
    to the stream that it kept. Here the block's output becomes the edited stream plus the MLP's
    contribution: the sum that the block itself computes, from what its modules really got and gave.
    """
    held: dict[str, Tensor] = {}
    late: list[RemovableHandle] = []

    def note_stream(
        _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], __: object
    ) -> None:
        held["mid"] = _input(args, kwargs)
        _remove(late)
        # Registered during the pass, and so behind all other hooks of this module: it sees what
        # they leave.
        late.append(mlp_out.module.register_forward_hook(note_contribution))

    def note_contribution(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        given = _output(output)
        held["mlp_out"] = given if mlp_out.scale == 1 else given * mlp_out.scale

    def put_back(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        stream = (held.pop("mid") + held.pop("mlp_out")).reshape(_output(output).shape)
        return (stream, *output[1:]) if isinstance(output, tuple | list) else stream

    handles = [
        mid.module.register_forward_hook(note_stream, with_kwargs=True),
        # Before all other hooks of the block, which read or edit what it puts out.
        post.module.register_forward_hook(put_back, prepend=True),
    ]
    try:
        yield
    finally:
        _remove(handles)
        _remove(late)


def _shaped(act: Act) -> tuple[Act, Callable[..., None]]:
    """`act` for a module that may see the tokens of all rows in one line, and a hook on its block."""
    shape: list[torch.Size] = []

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        shape[:] = [_input(args, kwargs).shape]

    def shaped(given: Tensor) -> Tensor | None:
        changed = act(given.reshape(*shape[0][:-1], given.shape[-1]))
        return None if changed is None else changed.reshape(*given.shape[:-1], changed.shape[-1])

    return shaped, note


def _scaled(act: Act, scale: float) -> Act:
    def scaled(given: Tensor) -> Tensor | None:
        changed = act(given * scale)
        return None if changed is None else changed / scale

    return scaled


def _input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0] if args else kwargs["hidden_states"]


def _output(output: Any) -> Any:
    return output[0] if isinstance(output, tuple | list) else output


def _remove(handles: list[RemovableHandle]) -> None:
    while handles:
        handles.pop().remove()
