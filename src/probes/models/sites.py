"""Where in a model an activation is read or replaced, under the field's names."""

import dataclasses
import re

from probes.foundation.errors import InputError, unknown

KINDS = ("resid_pre", "resid_post")
_OWN = re.compile(r"(?P<kind>[a-z_]+)\.(?P<layer>-?\d+)")
_LENS = re.compile(r"blocks\.(?P<layer>-?\d+)\.hook_(?P<kind>[a-z_]+)")


@dataclasses.dataclass(frozen=True, order=True)
class Site:
    """A place in the residual stream: before or after one decoder block.

    kind: "resid_pre" (input of the block) or "resid_post" (its output).
    layer: the block, counted from 0.
    """

    kind: str
    layer: int

    def __str__(self) -> str:
        return f"{self.kind}.{self.layer}"

    @property
    def hook_name(self) -> str:
        """The name of this site in TransformerLens."""
        return f"blocks.{self.layer}.hook_{self.kind}"

    @property
    def depth(self) -> int:
        """How many blocks lie before this site: the index into Hugging Face `hidden_states`.

        The last of those (depth = n_layers) is after the final norm in most models; this site is
        before it.
        """
        return self.layer + (self.kind == "resid_post")


def parse_site(text: str, n_layers: int) -> Site:
    """A site from "resid_post.2" or TransformerLens' "blocks.2.hook_resid_post".

    Raises `InputError` with the choices for an unknown kind, layer or spelling.
    """
    found = _OWN.fullmatch(text.strip()) or _LENS.fullmatch(text.strip())
    if found is None:
        raise unknown("site", text, [f"{kind}.<layer>" for kind in KINDS])
    if found["kind"] not in KINDS:
        raise unknown("kind of site", found["kind"], KINDS)
    layer = int(found["layer"])
    if not 0 <= layer < n_layers:
        raise InputError(
            f"unknown layer {layer} in {text!r}: this model has layers 0 to {n_layers - 1}"
        )
    return Site(found["kind"], layer)


def residual_sites(n_layers: int) -> list[Site]:
    """The residual stream at every layer: before the first block, then after each block."""
    if n_layers < 1:
        raise InputError(f"a model has at least one layer, not {n_layers}")
    return [Site("resid_pre", 0), *(Site("resid_post", layer) for layer in range(n_layers))]
