"""Where in a model an activation is read or replaced, under the field's names."""

import dataclasses
import functools
import re
from collections.abc import Sequence

from probes.foundation.errors import InputError, unknown

# In the order in which a block computes them.
KINDS = ("resid_pre", "z", "attn_out", "resid_mid", "mlp_out", "resid_post")
RESIDUAL = ("resid_pre", "resid_post")
LENS_NAMES = {kind: f"hook_{kind}" for kind in KINDS} | {"z": "attn.hook_z"}
_OWN = re.compile(r"(?P<kind>[a-z_]+)\.(?P<layer>-?\d+)")
_LENS = re.compile(r"blocks\.(?P<layer>-?\d+)\.(?P<name>[a-z_.]+)")


@functools.total_ordering
@dataclasses.dataclass(frozen=True)
class Site:
    """A place in one decoder block; sites sort in the order in which the model computes them.

    kind: the residual stream before the block ("resid_pre"), between attention and MLP
        ("resid_mid", which parallel blocks do not have) and after the block ("resid_post"); what
        attention and MLP add to it ("attn_out", "mlp_out": after their own post-norm and multiplier
        where the architecture has them, so resid_pre + attn_out + mlp_out = resid_post); or what
        attention's output projection reads ("z": the heads' outputs, one head after another).
    layer: the block, counted from 0.
    Raises `InputError` for an unknown kind or a negative layer.
    """

    kind: str
    layer: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("kind of site", self.kind, KINDS)
        if self.layer < 0:
            raise InputError(
                f"a site's layer counts from 0, not {self.layer}; `parse_site` takes layers "
                "counted from the end"
            )

    def __str__(self) -> str:
        return f"{self.kind}.{self.layer}"

    def __lt__(self, other: object) -> bool:
        return self.order < other.order if isinstance(other, Site) else NotImplemented

    @property
    def hook_name(self) -> str:
        """The name of this site in TransformerLens."""
        return f"blocks.{self.layer}.{LENS_NAMES[self.kind]}"

    @property
    def order(self) -> tuple[int, int]:
        """A sort key: the block, then the order of computation within it."""
        return self.layer, KINDS.index(self.kind)

    @property
    def depth(self) -> int:
        """How many blocks are complete before this site.

        For "resid_pre" and "resid_post" this is the index into Hugging Face `hidden_states`. The
        last of those (depth = n_layers) is after the final norm in most models; this site is
        before it.
        """
        return self.layer + (self.kind == "resid_post")


def parse_site(text: str, n_layers: int, kinds: Sequence[str] = KINDS) -> Site:
    """A site from "z.2" or from TransformerLens' "blocks.2.attn.hook_z".

    A negative layer counts from the end: -1 is the last block. kinds: those that the caller can
    use. Raises `InputError` with the choices for an unknown kind, layer or spelling.
    """
    names = {LENS_NAMES[kind]: kind for kind in kinds}
    if found := _OWN.fullmatch(text.strip()):
        kind = found["kind"]
        if kind not in kinds:
            raise unknown("kind of site", kind, kinds)
    elif found := _LENS.fullmatch(text.strip()):
        if found["name"] not in names:
            raise unknown("TransformerLens hook", found["name"], names)
        kind = names[found["name"]]
    else:
        choices = [*(f"{kind}.<layer>" for kind in kinds), *(f"blocks.<layer>.{n}" for n in names)]
        raise unknown("site", text, choices)
    layer = int(found["layer"])
    if not -n_layers <= layer < n_layers:
        raise InputError(
            f"unknown layer {layer} in {text!r}: this model has layers 0 to {n_layers - 1} (or -1 "
            f"to {-n_layers}, counted from the end)"
        )
    return Site(kind, layer % n_layers)


def all_sites(n_layers: int, kinds: Sequence[str] = KINDS) -> list[Site]:
    """Every site of these kinds, in the order in which the model computes them."""
    _check_depth(n_layers)
    return sorted(Site(kind, layer) for kind in dict.fromkeys(kinds) for layer in range(n_layers))


def residual_sites(n_layers: int) -> list[Site]:
    """The residual stream at every depth: before the first block, then after each block."""
    _check_depth(n_layers)
    return [Site("resid_pre", 0), *(Site("resid_post", layer) for layer in range(n_layers))]


def _check_depth(n_layers: int) -> None:
    if n_layers < 1:
        raise InputError(f"a model has at least one layer, not {n_layers}")
