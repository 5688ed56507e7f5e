"""The slow way: one full forward pass per cell, prompt and continuation, with hooks; nothing is reused.

It is what the engine is checked against, in the tests and in every grid.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probes.models.anatomy import blocks
from probes.models.encoding import pad
from probes.models.forward import inputs
from probes.models.hooks import editing, recording
from probes.patching.engine.packing import Packed
from probes.patching.engine.taps import RunCache, Taps, tapping
from probes.patching.engine.trunk import Place, site_of

Put = Callable[[Tensor], Tensor]


def whole_logits(hf: Any, row: Packed, puts: dict[Place, list[Put]] | None = None) -> Tensor:
    """Logits of a row's reads `[read, d_vocab]`, each continuation in a forward pass of its own.

    puts: per place, one function per continuation that gets the activation `[1, pos, width]`, or
    `[1, pos, head, ...]` where there are heads, and returns what to use.
    """
    reads: dict[int, Tensor] = {}
    for number, (tokens, kept) in enumerate(sequences(row)):
        own = {place: per_branch[number] for place, per_branch in (puts or {}).items()}
        with torch.no_grad(), _putting(hf, own) as cache:
            given = inputs(hf, pad([tokens], 0)) | (
                {} if cache is None else {"past_key_values": cache}
            )
            logits = hf(**given).logits[0]
        reads |= {read: logits[kept.index(at)] for read, at in enumerate(row.reads) if at in kept}
    return torch.stack([reads[read] for read in range(len(row.reads))])


def sequences(row: Packed) -> list[tuple[list[int], list[int]]]:
    """Per continuation, the tokens of prompt and continuation, and which packed positions they are."""
    found = []
    for branch in sorted({target.branch for target in row.targets}) or [0]:
        kept = [i for i, b in enumerate(row.branch) if b in (-1, branch)]
        found.append(([row.tokens[i] for i in kept], kept))
    return found


def whole_values(hf: Any, tokens: Sequence[int], place: Place) -> Float[Tensor, "batch pos *width"]:
    """What a plain run computes at a place."""
    kind, layer = place
    n_heads = int(hf.config.get_text_config().num_attention_heads)
    given = inputs(hf.base_model, pad([list(tokens)], 0))
    with torch.no_grad():
        if kind in ("k", "v"):
            cache = RunCache(keep=True)
            hf.base_model(**given | {"past_key_values": cache})
            return cache.kept[layer][kind == "v"].transpose(1, 2)
        if kind in ("q", "pattern"):
            taps, found = Taps(), list[Tensor]()
            target = taps.queries if kind == "q" else taps.patterns
            target[layer] = lambda seen: found.append(seen.clone().transpose(1, 2))
            with tapping(hf, taps):
                hf.base_model(**given)
            return found[0]
        site = site_of(place, len(blocks(hf)))
        with recording(hf, [site], stop=True) as seen:
            hf.base_model(**given)
    values = seen[site]
    return values.reshape(*values.shape[:2], n_heads, -1) if kind == "z" else values


@contextlib.contextmanager
def _putting(hf: Any, puts: dict[Place, Put]) -> Any:
    taps = Taps()
    caching = {place: put for place, put in puts.items() if place[0] in ("k", "v")}

    def edit(kind: str, layer: int, computed: Tensor) -> Tensor:
        put = caching.get((kind, layer))
        return computed if put is None else put(computed.transpose(1, 2)).transpose(1, 2)

    def turned(put: Put) -> Put:
        return lambda found: put(found.transpose(1, 2)).transpose(1, 2)

    def by_head(put: Put, n_heads: int) -> Put:
        def flat(activation: Tensor) -> Tensor:
            parted = activation.reshape(*activation.shape[:2], n_heads, -1)
            return put(parted).reshape(activation.shape)

        return flat

    with contextlib.ExitStack() as stack:
        for place, put in puts.items():
            match place[0]:
                case "q":
                    taps.queries[place[1]] = turned(put)
                case "pattern":
                    taps.patterns[place[1]] = turned(put)
                case "k" | "v":
                    pass
                case kind:
                    n_heads = int(hf.config.get_text_config().num_attention_heads)
                    act = by_head(put, n_heads) if kind == "z" else put
                    stack.enter_context(editing(hf, site_of(place, len(blocks(hf))), act))
        if taps.queries or taps.patterns:
            stack.enter_context(tapping(hf, taps))
        yield RunCache(edit=edit) if caching else None
