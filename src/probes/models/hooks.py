"""Attach a function to a place in a model, whatever shape the module there sees its tokens in."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from probes.foundation.errors import InputError, StageError
from probes.models.anatomy import Place, find
from probes.models.sites import Site

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


Edit = Callable[[Tensor], Tensor]


class _EnoughError(Exception):
    """Ends a forward pass once every wanted site was seen."""


@contextlib.contextmanager
def recording(
    hf: Any,
    sites: Iterable[Site],
    *,
    select: Edit | Mapping[Site, Edit] = torch.clone,
    stop: bool = False,
) -> Iterator[dict[Site, Tensor]]:
    """Fill a dictionary with the activations at `sites` while the block runs a forward pass.

    select: what to keep of each `[batch, pos, width]` tensor, called as soon as it is there; one
        function, or one per site. `anatomy.width` tells how z, recorded flat, parts into heads.
        The default copies all of it, so nothing that the model later does in place can change it;
        gradients flow through the copy.
    stop: end the forward pass (and the `with` block) as soon as every site was seen. What comes
        after the last site is then never computed.
    Raises `InputError` for a site that this architecture does not have, `StageError` if the block
    ends and a site was not reached.
    """
    wanted = list(dict.fromkeys(sites))
    if not wanted:
        raise InputError("no site to record")
    if isinstance(select, Mapping) and (lacking := [str(s) for s in wanted if s not in select]):
        raise InputError(f"`select` has no function for {', '.join(lacking)}; give one per site")
    seen: dict[Site, Tensor] = {}

    def keep(site: Site) -> Act:
        chosen = select[site] if isinstance(select, Mapping) else select

        def act(activation: Tensor) -> None:
            seen[site] = chosen(activation)
            if stop and len(seen) == len(wanted):
                raise _EnoughError

        return act

    handles: list[RemovableHandle] = []
    try:
        for site, place in find(hf, wanted).items():
            handles += attach(place, keep(site))
        with contextlib.suppress(_EnoughError):
            yield seen
    finally:
        for handle in handles:
            handle.remove()
    missing = [str(site) for site in wanted if site not in seen]
    if missing:
        raise StageError(f"no forward pass reached {', '.join(missing)}: nothing was recorded")


@contextlib.contextmanager
def editing(hf: Any, site: Site, edit: Edit) -> Iterator[None]:
    """Pass the activation at `site` through `edit` in every forward pass of the block.

    `edit` gets `[batch, pos, width]` and returns a new tensor of that shape; writing into its
    argument is an error, and so is a block in which the edit never happened. The model goes on with
    the result everywhere: an edit at resid_mid reaches both the MLP and the stream behind it (in
    `TransformerBridge` a hook there reaches the MLP alone).
    """
    n_edits = 0

    def act(activation: Tensor) -> Tensor:
        nonlocal n_edits
        version = _version(activation)
        edited = edit(activation)
        if _version(activation) != version:
            raise StageError(f"the edit at {site} wrote into its input; return a new tensor")
        if edited.shape != activation.shape:
            raise InputError(
                f"the edit at {site} returned shape {tuple(edited.shape)}, the activation has "
                f"{tuple(activation.shape)}"
            )
        n_edits += 1
        return edited.to(activation)

    with contextlib.ExitStack() as stack:
        if site.kind == "resid_mid":
            around = [site, Site("mlp_out", site.layer), Site("resid_post", site.layer)]
            stack.enter_context(carrying_on(*find(hf, around).values()))
        for handle in attach(find(hf, [site])[site], act):
            stack.callback(handle.remove)
        yield
    if n_edits == 0:
        raise StageError(f"no forward pass reached {site}: nothing was edited")


@contextlib.contextmanager
def replacing(
    hf: Any,
    site: Site,
    where: Bool[Tensor, "batch pos"] | Int[Tensor, "batch"],
    values: Tensor,
) -> Iterator[None]:
    """Replace the activation at `site`, at chosen tokens, in every forward pass of the block.

    where: a mask over the batch's tokens, or one column per row.
    values: `[width]`, `[batch, width]` (one vector per row) or `[batch or 1, pos, width]`;
        the entries at chosen tokens are used.
    """
    if where.dtype == torch.bool and not where.any():
        raise InputError(f"the mask for {site} chooses no token: nothing would be replaced")
    if values.ndim == 2:
        values = values.unsqueeze(1)

    def edit(activation: Tensor) -> Tensor:
        mask = where if where.dtype == torch.bool else columns(where, activation.shape[1])
        if mask.shape != activation.shape[:2]:
            raise InputError(
                f"the mask for {site} has shape {tuple(mask.shape)}, the batch has "
                f"{tuple(activation.shape[:2])} tokens"
            )
        return torch.where(mask.to(activation.device)[..., None], values.to(activation), activation)

    with editing(hf, site, edit):
        yield


def columns(positions: Int[Tensor, "batch"], n_pos: int) -> Bool[Tensor, "batch {n_pos}"]:
    """A token mask that chooses one column per row."""
    if positions.min() < 0 or positions.max() >= n_pos:
        raise InputError(f"positions {positions.tolist()} are not all columns 0 to {n_pos - 1}")
    return positions[:, None] == torch.arange(n_pos, device=positions.device)


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version
