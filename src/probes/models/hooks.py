"""Read and replace activations of a plain Hugging Face model; no hook outlives a `with`."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from probes.foundation.errors import InputError, StageError
from probes.models.anatomy import find
from probes.models.attach import Act, attach, carrying_on
from probes.models.sites import Site

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
