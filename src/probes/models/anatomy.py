"""Where the parts of a decoder block are, for every layout of a block that the package knows.

Architectures name alike what they compute alike, but not always: `post_attention_layernorm` stands
before the MLP in Llama and behind attention in Gemma and OLMo. A block is therefore known only if
all of its parts together are one of `LAYOUTS`; any part more, and only its two ends can be read.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

from torch import nn

from probes.foundation.errors import InputError
from probes.models.sites import KINDS, Site

BLOCK_LISTS = ("layers", "h", "blocks")
ATTENTION = ("self_attn", "attn", "attention")
PROJECTION = ("o_proj", "c_proj", "out_proj", "dense")
# The parts of the MLP by the one whose output is added to the stream.
MLP = {
    "mlp": {"mlp"},
    "block_sparse_moe": {"block_sparse_moe"},
    "fc2": {"fc1", "activation_fn", "fc2"},
}
MULTIPLIERS = ("residual_multiplier", "residual_scale")
# Blocks whose parts are those of a layout below, and whose sum is another one.
OTHER_SUMS = ("MiniMaxDecoderLayer", "BeamDecoderLayer", "GPTNeoXJapaneseLayer", "Block")


@dataclasses.dataclass(frozen=True)
class Layout:
    """One arrangement of the norms around attention and MLP.

    norms: all of them. between: the norm that reads resid_mid; "mlp" where the MLP itself does,
    None where attention and MLP stand side by side. attn_out, mlp_out: the norm behind attention
    and behind the MLP, if there is one.
    """

    norms: frozenset[str]
    between: str | None
    attn_out: str | None = None
    mlp_out: str | None = None


def _norms(text: str) -> frozenset[str]:
    return frozenset(text.split())


LAYOUTS = (
    Layout(_norms("input_layernorm post_attention_layernorm"), "post_attention_layernorm"),
    Layout(_norms("ln_1 ln_2"), "ln_2"),
    Layout(_norms("self_attn_layer_norm final_layer_norm"), "final_layer_norm"),
    Layout(_norms("input_layernorm"), None),
    Layout(_norms("ln_1"), None),
    Layout(
        _norms("post_attention_layernorm post_feedforward_layernorm"),
        "mlp",
        "post_attention_layernorm",
        "post_feedforward_layernorm",
    ),
    Layout(
        _norms(
            "input_layernorm post_attention_layernorm pre_feedforward_layernorm "
            "post_feedforward_layernorm"
        ),
        "pre_feedforward_layernorm",
        "post_attention_layernorm",
        "post_feedforward_layernorm",
    ),
    Layout(
        _norms(
            "input_layernorm post_self_attn_layernorm post_attention_layernorm post_mlp_layernorm"
        ),
        "post_attention_layernorm",
        "post_self_attn_layernorm",
        "post_mlp_layernorm",
    ),
)


@dataclasses.dataclass(frozen=True)
class Place:
    """The input or the output of one module.

    scale: what the block multiplies the output with before it adds it to the stream.
    shaped_by: the block, where this module may see `[batch * pos, width]` and only the block's
        input tells batch and pos apart.
    """

    module: nn.Module
    at_input: bool = False
    scale: float = 1.0
    shaped_by: nn.Module | None = None


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


def find(hf: Any, sites: Iterable[Site]) -> dict[Site, Place]:
    """The module at each site.

    Raises `InputError` for a layer that the model does not have, and for a kind that its blocks do
    not have or that is not known to be found in them; it says which and why.
    """
    layers = blocks(hf)
    inner: dict[int, dict[str, Place]] = {}
    found: dict[Site, Place] = {}
    for site in sites:
        if site.layer >= len(layers):
            raise InputError(f"no site {site}: this model has layers 0 to {len(layers) - 1}")
        block = layers[site.layer]
        if site.kind == "resid_pre":
            found[site] = Place(block, at_input=True)
        elif site.kind == "resid_post":
            found[site] = Place(block)
        else:
            if site.layer not in inner:
                inner[site.layer] = _inner(block)
            if site.kind not in inner[site.layer]:
                has = [
                    k for k in KINDS if k in inner[site.layer] or k in ("resid_pre", "resid_post")
                ]
                raise InputError(
                    f"no site {site} in {type(hf).__name__}: {_reason(block, site.kind)}. This "
                    f"block has {', '.join(has)}."
                )
            found[site] = inner[site.layer][site.kind]
    return found


def missing(hf: Any) -> dict[str, str]:
    """The kinds of site that not every block of this model has, each with the reason."""
    reasons: dict[str, str] = {}
    for block in blocks(hf):
        inner = _inner(block)
        for kind in KINDS[1:-1]:
            if kind not in inner:
                reasons.setdefault(kind, _reason(block, kind))
    return reasons


def kinds(hf: Any) -> tuple[str, ...]:
    """The kinds of site that every block of this model has, in order of computation."""
    absent = missing(hf)
    return tuple(kind for kind in KINDS if kind not in absent)


def width(hf: Any, site: Site) -> tuple[int, ...]:
    """The shape of one token's activation: `(d_model,)`, or `(n_heads, d_head)` for z.

    Activations are recorded with these axes flattened, one head after another. n_heads * d_head
    need not be d_model.
    """
    place = find(hf, [site])[site]
    config = hf.config.get_text_config()
    if site.kind != "z":
        return (int(config.hidden_size),)
    projection: Any = place.module
    # GPT-2's projection is no `nn.Linear` and has another name for its input's width.
    n_inputs = int(projection.in_features if hasattr(projection, "in_features") else projection.nx)
    n_heads = int(config.num_attention_heads)
    if n_inputs % n_heads:
        raise InputError(
            f"{site} of {type(hf).__name__} has {n_inputs} entries, which {n_heads} heads do not "
            "share evenly: this attention is not supported"
        )
    return n_heads, n_inputs // n_heads


def _inner(block: nn.Module) -> dict[str, Place]:
    """The places between the ends of a block, as far as they are known."""
    parts = _parts(block)
    places: dict[str, Place] = {}
    attention = next((parts[name] for name in ATTENTION if name in parts), None)
    if attention is None:
        return places
    projection = next((n for n, _ in attention.named_children() if n in PROJECTION), None)
    if projection is not None:
        places["z"] = Place(attention.get_submodule(projection), at_input=True)
    layout = _layout(block, parts)
    if layout is None:
        return places
    mlp = next(name for name in MLP if name in parts)
    scale = next((float(getattr(block, n)) for n in MULTIPLIERS if hasattr(block, n)), 1.0)
    shaped_by = block if mlp == "fc2" else None
    behind = parts[layout.attn_out] if layout.attn_out else attention
    places["attn_out"] = Place(behind, scale=scale)
    if layout.between is not None and not getattr(block, "use_parallel_residual", False):
        reader = parts[mlp if layout.between == "mlp" else layout.between]
        places["resid_mid"] = Place(reader, at_input=True, shaped_by=shaped_by)
    behind = parts[layout.mlp_out] if layout.mlp_out else parts[mlp]
    places["mlp_out"] = Place(behind, scale=scale, shaped_by=shaped_by)
    return places


def _parts(block: nn.Module) -> dict[str, nn.Module]:
    passive = (nn.Dropout, nn.Identity)
    return {name: part for name, part in block.named_children() if not isinstance(part, passive)}


def _layout(block: nn.Module, parts: dict[str, nn.Module]) -> Layout | None:
    own = [*block.parameters(recurse=False), *block.buffers(recurse=False)]
    if (
        type(block).__name__ in OTHER_SUMS
        or own
        or not getattr(block, "do_layer_norm_before", True)
    ):
        return None
    for layout in LAYOUTS:
        for attention in ATTENTION:
            for members in MLP.values():
                if parts.keys() == {attention, *members, *layout.norms}:
                    return layout
    return None


def _reason(block: nn.Module, kind: str) -> str:
    parts = _parts(block)
    if kind == "resid_mid" and _layout(block, parts) is not None:
        return (
            "attention and MLP both read resid_pre and are added to it at once, so there is no "
            "stream between them"
        )
    return (
        f"{type(block).__name__} (with {', '.join(parts)}) is not known to add attention and MLP "
        "to the stream at known places"
    )
