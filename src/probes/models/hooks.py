"""Read and replace the residual stream of a plain Hugging Face model; no hook outlives a `with`."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from probes.foundation.errors import InputError, StageError
from probes.models.sites import KINDS, Site

BLOCK_LISTS = ("layers", "h", "blocks")
Edit = Callable[[Tensor], Tensor]


class _EnoughError(Exception):
    """Ends a forward pass once every wanted site was seen."""


def blocks(hf: Any) -> list[nn.Module]:
    """The decoder blocks of a causal language model, in order.

    Raises `InputError` naming the architecture where they are not found under the known names.
    """
    decoder = hf.get_decoder() if hasattr(hf, "get_decoder") else hf
    for name in BLOCK_LISTS:
        found = getattr(decoder, name, None)
        if isinstance(found, nn.ModuleList) and len(found) > 0:
            return list(found)
    raise InputError(
        f"no decoder blocks found in {type(hf).__name__} ({type(decoder).__name__} has none of "
        f"{', '.join(BLOCK_LISTS)}): this architecture is not supported"
    )


@contextlib.contextmanager
def recording(
    hf: Any, sites: Iterable[Site], *, select: Edit = torch.clone, stop: bool = False
) -> Iterator[dict[Site, Tensor]]:
    """Fill a dictionary with the residual stream at `sites` while the block runs a forward pass.

    select: what to keep of each `[batch, pos, d_model]` tensor, called as soon as it is there. The
        default copies all of it, so nothing that the model later does in place can change it;
        gradients flow through the copy.
    stop: end the forward pass (and the `with` block) as soon as every site was seen. Layers after
        the last site are then never computed.
    Raises `StageError` if the block ends and a site was not reached.
    """
    wanted = list(dict.fromkeys(sites))
    if not wanted:
        raise InputError("no site to record")
    seen: dict[Site, Tensor] = {}

    def keep(site: Site) -> Edit:
        def hook(residual: Tensor) -> Tensor:
            seen[site] = select(residual)
            if stop and len(seen) == len(wanted):
                raise _EnoughError
            return residual

        return hook

    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.suppress(_EnoughError))
        for site in wanted:
            stack.enter_context(_hooked(hf, site, keep(site)))
        yield seen
    missing = [str(site) for site in wanted if site not in seen]
    if missing:
        raise StageError(f"no forward pass reached {', '.join(missing)}: nothing was recorded")


@contextlib.contextmanager
def editing(hf: Any, site: Site, edit: Edit) -> Iterator[None]:
    """Pass the residual stream at `site` through `edit` in every forward pass of the block.

    `edit` gets `[batch, pos, d_model]` and returns a new tensor of that shape; writing into its
    argument is an error, and so is a block in which the edit never happened.
    """
    n_edits = 0

    def hook(residual: Tensor) -> Tensor:
        nonlocal n_edits
        version = _version(residual)
        edited = edit(residual)
        if _version(residual) != version:
            raise StageError(f"the edit at {site} wrote into its input; return a new tensor")
        if edited.shape != residual.shape:
            raise InputError(
                f"the edit at {site} returned shape {tuple(edited.shape)}, the residual stream has "
                f"{tuple(residual.shape)}"
            )
        n_edits += 1
        return edited.to(residual)

    with _hooked(hf, site, hook):
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
    """Replace the residual stream at `site`, at chosen tokens, in every forward pass of the block.

    where: a mask over the batch's tokens, or one column per row.
    values: `[d_model]`, `[batch, d_model]` (one vector per row) or `[batch or 1, pos, d_model]`;
        the entries at chosen tokens are used.
    """
    if where.dtype == torch.bool and not where.any():
        raise InputError(f"the mask for {site} chooses no token: nothing would be replaced")
    if values.ndim == 2:
        values = values.unsqueeze(1)

    def edit(residual: Tensor) -> Tensor:
        mask = where if where.dtype == torch.bool else columns(where, residual.shape[1])
        if mask.shape != residual.shape[:2]:
            raise InputError(
                f"the mask for {site} has shape {tuple(mask.shape)}, the batch has "
                f"{tuple(residual.shape[:2])} tokens"
            )
        return torch.where(mask.to(residual.device)[..., None], values.to(residual), residual)

    with editing(hf, site, edit):
        yield


def columns(positions: Int[Tensor, "batch"], n_pos: int) -> Bool[Tensor, "batch {n_pos}"]:
    """A token mask that chooses one column per row."""
    if positions.min() < 0 or positions.max() >= n_pos:
        raise InputError(f"positions {positions.tolist()} are not all columns 0 to {n_pos - 1}")
    return positions[:, None] == torch.arange(n_pos, device=positions.device)


@contextlib.contextmanager
def _hooked(hf: Any, site: Site, act: Edit) -> Iterator[None]:
    """Run `act` on the residual stream at `site` and let the model go on with what it returns."""
    layers = blocks(hf)
    if site.kind not in KINDS or not 0 <= site.layer < len(layers):
        raise InputError(
            f"no site {site}: kinds are {', '.join(KINDS)}, layers 0 to {len(layers) - 1}"
        )
    block = layers[site.layer]

    def before(
        _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (act(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": act(kwargs["hidden_states"])}

    def after(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, tuple):
            return (act(output[0]), *output[1:])
        return act(output)

    if site.kind == "resid_pre":
        handle = block.register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = block.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version
