"""What is patched together: parts of the model, by layer, head and column, make up one cell."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from probes.foundation.errors import InputError, unknown
from probes.models import anatomy
from probes.patching.engine.trunk import HOOKED, TAPPED, Place
from probes.patching.spans import Column

# In the order in which a block computes them.
PATCHABLE = (
    "resid_pre", "q", "k", "v", "pattern", "z", "attn_out", "resid_mid", "mlp_out", "resid_post",
)  # fmt: skip
PER_HEAD = ("q", "k", "v", "pattern", "z")
EVERYWHERE = -1


@dataclasses.dataclass(frozen=True)
class Part:
    """One activation: a kind of site in a layer, of one head or all, at one column or everywhere.

    kind: as in `PATCHABLE`. "q" and "k" are after rotary embedding; of k and v there are as many
    heads as the model has key heads (fewer than query heads under grouped-query attention, and each
    then serves several). "pattern" is a row of attention weights per head and query position.
    head: counted from 0; None for all. column: index into the grid's columns; `EVERYWHERE` for every
    token, those of the continuations too, as TransformerLens' "all_pos" does.
    """

    kind: str
    layer: int
    head: int | None = None
    column: int = EVERYWHERE

    def __str__(self) -> str:
        return f"{self.kind}.{self.layer}" + ("" if self.head is None else f".{self.head}")

    @property
    def place(self) -> Place:
        """Where the engine finds it: streams are counted by the blocks below them."""
        if self.kind in ("resid_pre", "resid_post"):
            return "stream", self.layer + (self.kind == "resid_post")
        return self.kind, self.layer

    @property
    def depth(self) -> int:
        """How many blocks are complete before it."""
        return self.place[1]


@dataclasses.dataclass(frozen=True)
class Cell:
    """Parts that are patched at once, and how a table calls them.

    site: such as "resid_pre.2", or "mlp_out.2-4" for a window. column, label: of the positions.
    """

    parts: tuple[Part, ...]
    site: str
    label: str
    column: int = EVERYWHERE

    @property
    def layer(self) -> int:
        return min(part.depth for part in self.parts)

    @property
    def head(self) -> int | None:
        heads = {part.head for part in self.parts}
        return heads.pop() if len(heads) == 1 else None


def n_heads(hf: Any, kind: str) -> int:
    """How many heads one kind of site has; those of k and v may serve several query heads."""
    config = hf.config.get_text_config()
    shared = getattr(config, "num_key_value_heads", None) if kind in ("k", "v") else None
    return int(shared or config.num_attention_heads)


def check_kind(hf: Any, kind: str) -> None:
    """Refuse a kind of site that is unknown, or that this architecture is not known to have."""
    if kind not in PATCHABLE:
        raise unknown("kind of site to patch", kind, PATCHABLE)
    if kind in HOOKED:
        absent = anatomy.missing(hf)
        if kind in absent:
            has = [k for k in PATCHABLE if k not in absent]
            raise InputError(
                f"no {kind} in {type(hf).__name__}: {absent[kind]}. It has {', '.join(has)}."
            )
    elif kind in TAPPED and not hasattr(anatomy.blocks(hf)[0], _attention_name(hf)):
        raise InputError(f"no attention found in {type(hf).__name__}, so there is no {kind}")


def grid_cells(
    hf: Any,
    kinds: Iterable[str],
    columns: Sequence[Column] | None = None,
    *,
    layers: Sequence[int] | None = None,
    heads: bool = False,
    window: int = 1,
) -> list[Cell]:
    """The product of kinds, layers, columns and heads, from the bottom up and from left to right.

    columns: None for every token at once. layers: None for all. heads: one cell per head, for kinds
    that have heads. window: how many adjacent layers are patched together, starting at each layer
    where so many follow. Raises `InputError` for kinds, layers or windows that the model lacks.
    """
    n_layers = len(anatomy.blocks(hf))
    chosen = list(range(n_layers)) if layers is None else list(layers)
    if wrong := [layer for layer in chosen if not 0 <= layer < n_layers]:
        raise InputError(f"unknown layers {wrong}: this model has layers 0 to {n_layers - 1}")
    if not 1 <= window <= n_layers:
        raise InputError(f"a window has 1 to {n_layers} layers in this model, not {window}")
    places = [(EVERYWHERE, "everywhere")]
    if columns is not None:
        places = [(i, column.label) for i, column in enumerate(columns)]
    cells = []
    for kind in kinds:
        check_kind(hf, kind)
        if heads and kind not in PER_HEAD:
            raise InputError(f"{kind} has no heads; those with heads are {', '.join(PER_HEAD)}")
        numbers: list[int | None] = list(range(n_heads(hf, kind))) if heads else [None]
        for layer in chosen:
            if layer + window > n_layers:
                continue
            site = f"{kind}.{layer}" + (f"-{layer + window - 1}" if window > 1 else "")
            for column, label in places:
                for head in numbers:
                    parts = tuple(Part(kind, i, head, column) for i in range(layer, layer + window))
                    cells.append(Cell(parts, site, label, column))
    if not cells:
        raise InputError("no cell to patch: give at least one kind of site and one layer")
    return cells


def cell_set(parts: Sequence[Part], columns: Sequence[Column], name: str) -> Cell:
    """Any parts as one cell, under one name."""
    if not parts:
        raise InputError(f"the set {name!r} has no part to patch")
    found = sorted({part.column for part in parts})
    labels = ["everywhere" if c == EVERYWHERE else columns[c].label for c in found]
    return Cell(tuple(parts), name, "+".join(labels), found[0] if len(found) == 1 else EVERYWHERE)


def _attention_name(hf: Any) -> str:
    names = dict(anatomy.blocks(hf)[0].named_children())
    return next((name for name in anatomy.ATTENTION if name in names), "no attention")
