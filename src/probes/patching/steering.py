"""Add, remove or set one direction of a running model's activations: does the behaviour follow?

Each is a context manager on a loaded model: hooks live inside the `with` alone, on the plain Hugging
Face module, in forward passes and in generation with a cache alike.

    with steered(model, "resid_post.1", direction, 2.0):
        sample(model, prompts)

site: one site or several at once, as `Site`, "resid_post.1" or TransformerLens' name. vector:
`[width]`, the same at every site, or `[site, width]`, one each; z has the heads' outputs one after
another. dose: 0 is the plain model, to the bit, since nothing is hooked. tokens: "all"; "last", the
last token of the prompt; or "new", those that the model reads back as it writes with a cache.
Padding is never read by a real token, so what happens there changes nothing.
The sums are done in float32 at least and rounded to the model's dtype.
Raises `InputError` for a site that the model does not have, a vector of another width, or NaN.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor, nn

from probes.foundation.errors import InputError, unknown
from probes.models.anatomy import find, width
from probes.models.hooks import Edit, editing
from probes.models.identity import Identity, check_same
from probes.models.loading import Model
from probes.models.sites import Site, parse_site

TOKENS = ("all", "last", "new")


@dataclasses.dataclass
class Chosen:
    """What is known of the forward pass that runs. mask: over all tokens so far, None without padding.

    n_past: tokens that lie in the cache; 0 in the pass over the prompt.
    """

    mask: Tensor | None = None
    n_past: int = 0

    def columns(self, tokens: str, n_rows: int, n_pos: int) -> Bool[Tensor, "{n_rows} {n_pos}"]:
        """The tokens of this pass that are meant, whichever side the padding is on."""
        if tokens == "all":
            return torch.ones(n_rows, n_pos, dtype=torch.bool)
        if tokens == "new":
            return torch.full((n_rows, n_pos), self.n_past > 0)
        if self.n_past:
            return torch.zeros(n_rows, n_pos, dtype=torch.bool)
        mask = torch.ones(n_rows, n_pos) if self.mask is None else self.mask[:, -n_pos:].cpu()
        last = n_pos - 1 - mask.flip(-1).int().argmax(-1)
        return last[:, None] == torch.arange(n_pos)


@contextlib.contextmanager
def watching(hf: Any) -> Iterator[Chosen]:
    """Keep up to date with each forward pass of the model, or of its trunk, while the block lasts."""
    chosen = Chosen()
    # What holds the blocks: OPT's model calls it past its own base model.
    decoder = hf.get_decoder() if hasattr(hf, "get_decoder") else hf.base_model

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = args[0] if args else kwargs.get("input_ids")
        given = kwargs.get("inputs_embeds") if given is None else given
        mask = args[1] if len(args) > 1 else kwargs.get("attention_mask")
        chosen.mask = mask if isinstance(mask, Tensor) and mask.ndim == 2 else None
        cache = kwargs.get("past_key_values")
        if chosen.mask is not None and given is not None:
            chosen.n_past = chosen.mask.shape[1] - given.shape[1]
        else:
            chosen.n_past = int(cache.get_seq_length()) if cache is not None else 0

    handle = decoder.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield chosen
    finally:
        handle.remove()


Place = Site | str | Sequence[Site | str]
Array = np.ndarray | Tensor | Sequence[float] | Sequence[Sequence[float]]


@runtime_checkable
class Fitted(Protocol):
    """A linear probe (`probing.frozen.Direction`): weights, and the model that they were fitted on."""

    @property
    def coef(self) -> Any: ...

    @property
    def identity(self) -> Identity | None: ...


Number = float | int | Sequence[float] | np.ndarray


@contextlib.contextmanager
def steered(
    model: Model, site: Place, vector: Array | Fitted, dose: float | int, *, tokens: str = "all"
) -> Iterator[None]:
    """Add dose times the vector to the activations. Turner et al. (2023), Rimsky et al. (2023).

    vector: also a linear probe of this model, which is its weights; that of a mean difference at
    dose 1 leads from the mean of one class to the mean of the other.
    """
    sites = _sites(model, site)
    vectors = _vectors(model, sites, _weights(model, vector))

    def edit_of(number: int) -> Edit:
        pushed = vectors[number] * dose
        return lambda x: x + pushed.to(x)

    with _edited(model, sites, edit_of, dose, tokens):
        yield


@contextlib.contextmanager
def ablated(
    model: Model,
    site: Place,
    vector: Array,
    *,
    to: Number = 0.0,
    dose: float | int = 1.0,
    instead: Array | None = None,
    tokens: str = "all",
) -> Iterator[None]:
    """Remove what the activations hold along the vector's direction, whatever its length.

    to: the projection on the unit vector that is left, 0 or for instance the mean of the data; one
        number, or one per site. dose: the share of the way there, 0 nothing, 1 all.
    instead: take exactly as much away along this direction, a control of the same norm at every
        token which leaves the vector's own component in place (but for what the two share).
    """
    sites = _sites(model, site)
    units = _units(model, sites, vector, "vector")
    written = units if instead is None else _units(model, sites, instead, "instead")
    targets = _per_site(to, len(sites))

    def edit_of(number: int) -> Edit:
        unit, put, target = units[number], written[number], float(targets[number])

        def edit(x: Tensor) -> Tensor:
            missing = target - x @ unit.to(x)
            return x + dose * missing[..., None] * put.to(x)

        return edit

    with _edited(model, sites, edit_of, dose, tokens):
        yield


@contextlib.contextmanager
def along(
    model: Model,
    site: Place,
    vector: Array,
    target: Number,
    *,
    dose: float | int = 1.0,
    tokens: str = "all",
) -> Iterator[None]:
    """Patch along the direction alone: set the projection on the unit vector to the target.

    target: such as the mean of the other class, one number or one per site. Everything at a right
    angle to the vector stays as it is.
    """
    with ablated(model, site, vector, to=target, dose=dose, tokens=tokens):
        yield


@contextlib.contextmanager
def erased(
    model: Model,
    site: Place,
    matrix: Array,
    bias: Array,
    *,
    dose: float | int = 1.0,
    tokens: str = "all",
) -> Iterator[None]:
    """Send each activation x to matrix @ x + bias: LEACE, or any other affine map.

    matrix: `[width, width]` or `[site, width, width]`; bias: `[width]` or `[site, width]`.
    dose: the share of the way from x to its image.
    """
    sites = _sites(model, site)
    biases = _vectors(model, sites, bias, "bias")
    matrices = _array(matrix, "matrix")
    matrices = matrices[None].expand(len(sites), -1, -1) if matrices.ndim == 2 else matrices
    for number, one in enumerate(sites):
        size = _width(model, one)
        if matrices.ndim != 3 or len(matrices) != len(sites) or matrices.shape[1:] != (size, size):
            raise InputError(
                f"the matrix for {', '.join(map(str, sites))} has shape {tuple(_shape(matrix))}; "
                f"give ({size}, {size}), or one such matrix per site"
            )
        if len(biases[number]) != size:
            raise InputError(f"the bias for {one} has {len(biases[number])} entries, not {size}")

    def edit_of(number: int) -> Edit:
        def edit(x: Tensor) -> Tensor:
            return x + dose * (x @ matrices[number].to(x).T + biases[number].to(x) - x)

        return edit

    with _edited(model, sites, edit_of, dose, tokens):
        yield


@contextlib.contextmanager
def _edited(
    model: Model,
    sites: Sequence[Site],
    edit_of: Callable[[int], Edit],
    dose: float | int,
    tokens: str,
) -> Iterator[None]:
    """Each site passed through its edit, at the chosen tokens; nothing at all where the dose is 0."""
    if tokens not in TOKENS:
        raise unknown("tokens to change", tokens, TOKENS)
    if not np.isfinite(dose):
        raise InputError(f"a dose is a finite number, not {dose}")
    if dose == 0:
        yield
        return
    with contextlib.ExitStack() as stack:
        chosen = stack.enter_context(watching(model.hf)) if tokens != "all" else None
        for number, site in enumerate(sites):
            edit = _in_float32(edit_of(number), chosen, tokens)
            stack.enter_context(editing(model.hf, site, edit))
        yield


def _in_float32(edit: Edit, chosen: Chosen | None, tokens: str) -> Edit:
    def act(activation: Tensor) -> Tensor:
        precise = activation.to(torch.promote_types(activation.dtype, torch.float32))
        changed = edit(precise).to(activation.dtype)
        if chosen is None:
            return changed
        mask = chosen.columns(tokens, activation.shape[0], activation.shape[1])
        return torch.where(mask.to(activation.device)[..., None], changed, activation)

    return act


def _sites(model: Model, site: Place) -> list[Site]:
    given = [site] if isinstance(site, Site | str) else list(site)
    sites = [one if isinstance(one, Site) else parse_site(one, model.n_layers) for one in given]
    if not sites or len(set(sites)) != len(sites):
        raise InputError(
            f"give at least one site, each once; saw {', '.join(map(str, given)) or 'none'}"
        )
    find(model.hf, sites)
    return sites


def _vectors(
    model: Model, sites: Sequence[Site], vector: Array, called: str = "vector"
) -> list[Tensor]:
    given = _array(vector, called)
    rows = list(given) if given.ndim == 2 else [given] * len(sites)
    if given.ndim not in (1, 2) or len(rows) != len(sites):
        raise InputError(
            f"the {called} has shape {tuple(given.shape)} for {len(sites)} site(s): give one of "
            "shape (width,) for all of them, or (site, width)"
        )
    for site, row in zip(sites, rows, strict=True):
        if len(row) != _width(model, site):
            raise InputError(
                f"the {called} has {len(row)} entries; {site} of {model.name} has "
                f"{_width(model, site)}. Was it fitted on another model or site?"
            )
    return rows


def _weights(model: Model, vector: Array | Fitted) -> Array:
    if not isinstance(vector, Fitted):
        return vector
    if vector.identity is not None:
        check_same(
            vector.identity, model.identity, "this direction was fitted on",
            "Steer that model, or give `direction.coef` to carry it over on purpose",
        )  # fmt: skip
    weights: np.ndarray = vector.coef
    return weights


def _units(model: Model, sites: Sequence[Site], vector: Array, called: str) -> list[Tensor]:
    rows = _vectors(model, sites, vector, called)
    for site, row in zip(sites, rows, strict=True):
        if not row.norm() > 0:
            raise InputError(f"the {called} for {site} is zero: it has no direction to remove")
    return [row / row.norm() for row in rows]


def _array(values: Array, called: str) -> Tensor:
    """A finite float32 tensor, so that it meets the activations at no less than their precision."""
    given = values if isinstance(values, Tensor) else torch.tensor(np.asarray(values))
    given = given.detach().to(torch.float64)
    if not bool(torch.isfinite(given).all()):
        n_broken = int((~torch.isfinite(given)).sum())
        raise InputError(
            f"the {called} has {n_broken} of {given.numel()} entries that are NaN or infinite: fit "
            "it again on finite activations"
        )
    return given.to(torch.float32)


def _per_site(values: Number, n_sites: int) -> np.ndarray:
    given = np.asarray(values, dtype=np.float64)
    if given.shape not in ((), (n_sites,)) or not np.isfinite(given).all():
        raise InputError(
            f"a projection to set is one finite number, or one per site ({n_sites}); saw {values}"
        )
    return np.broadcast_to(given, (n_sites,))


def _width(model: Model, site: Site) -> int:
    return int(np.prod(width(model.hf, site)))


def _shape(values: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in np.shape(values))
