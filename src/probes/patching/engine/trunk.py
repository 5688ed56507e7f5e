"""The model's own forward pass, whole and kept, or entered at a layer with a prefix already computed.

Blocks below the entry are passed over and keys and values of the prefix come from the kept run; the
masks, norms, positions and the unembedding are the model's own code throughout.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from probes.foundation.errors import InputError
from probes.foundation.shapes import Residual
from probes.models.anatomy import blocks
from probes.models.hooks import editing, recording
from probes.models.sinks import SinkRule
from probes.models.sites import Site, parse_site
from probes.patching.engine.packing import Packed, PackedBatch, make_batch
from probes.patching.engine.taps import (
    RunCache,
    Taps,
    attended,
    can_be_cut,
    ends_in_projection,
    reading_last,
    replaced,
    tapping,
)

# Of one layer: "stream" 0 is the residual stream before the first block, k that after block k - 1.
Place = tuple[str, int]
HOOKED = ("z", "attn_out", "resid_mid", "mlp_out")
TAPPED = ("q", "k", "v", "pattern")


def site_of(place: Place, n_layers: int) -> Site:
    """Where hooks find a place that is not tapped."""
    kind, layer = place
    if kind != "stream":
        return Site(kind, layer)
    return Site("resid_post", layer - 1) if layer == n_layers else Site("resid_pre", layer)


@dataclasses.dataclass(frozen=True)
class Kept:
    """What one whole run computed, for several prompts.

    streams: `[batch, pos, d_model]` at every depth. caches: keys and values per layer, `[batch, head,
    pos, d_head]`. values: by place, `[batch, pos, d_model]`, or `[batch, pos, head, d_head]` where
    there are heads (key heads for k and v), `[batch, query, head, key]` for patterns.
    """

    batch: PackedBatch
    streams: tuple[Tensor, ...]
    caches: tuple[tuple[Tensor, Tensor], ...]
    values: dict[Place, Tensor]
    final: Residual

    def at(self, place: Place) -> Tensor:
        return self.streams[place[1]] if place[0] == "stream" else self.values[place]

    def sinks(self, rule: SinkRule | None) -> Bool[Tensor, "batch pos"]:
        """Which tokens are attention sinks, by the norm of the stream; pads are anything."""
        if rule is None:
            return torch.zeros(
                self.streams[0].shape[:2], dtype=torch.bool, device=self.final.device
            )
        stream = self.streams[parse_site(rule.site, len(self.streams) - 1).depth]
        return stream.float().norm(dim=-1) > rule.limit

    def at_reads(self) -> Float[Tensor, "read d_model"]:
        """Final hidden states of all reads, prompt after prompt."""
        rows = [(i, at) for i, row in enumerate(self.batch.rows) for at in row.reads]
        where = torch.tensor(rows, device=self.final.device)
        return self.final[where[:, 0], where[:, 1]]


@dataclasses.dataclass(frozen=True)
class Run:
    """What a batch runs: `n_lead` slots that only keys and values are needed of, then those read.

    rows: which prompt of the kept run each row continues. index: the packed position in each slot;
    slots that are not `real` repeat another and are not to be read. unrun: kept positions that come
    first among the keys. attended: the first block's attention is the kept run's.
    """

    rows: Int[Tensor, "batch"]
    index: Int[Tensor, "batch slot"]
    real: Bool[Tensor, "batch slot"]
    unrun: Bool[Tensor, "batch past"]
    n_lead: int
    attended: bool


def behind_keys(place: Place, last: int) -> bool:
    """Whether no key or value of any block depends on this place: it matters where it is read."""
    kind, layer = place
    return layer > last or (layer == last and kind not in ("stream", "k", "v"))


class Trunk:
    """A plain Hugging Face decoder; one whose blocks cannot be passed over is refused."""

    def __init__(self, hf: Any, pad_id: int) -> None:
        self.hf = hf
        self.pad_id = pad_id
        self.blocks = blocks(hf)
        self.n_layers = len(self.blocks)
        self.device = next(hf.parameters()).device
        config = hf.config.get_text_config()
        self.n_heads = int(config.num_attention_heads)
        self._windows = _windows(config, self.n_layers)
        self._tuples = [False] * self.n_layers
        # Both are found out by a whole run.
        self.reads_last = self.skips_attention = False
        if any("forward" in vars(block) for block in self.blocks):
            raise InputError(
                f"{type(hf).__name__} is spread over devices by accelerate, whose blocks cannot be "
                "passed over: load it onto one device"
            )

    def pack(self, rows: list[Packed]) -> PackedBatch:
        longest = max(max(row.positions) for row in rows) + 1
        windows = [None if w is None or w >= longest else w for w in self._windows]
        return make_batch(rows, self.pad_id, windows, self.device)

    def record(self, rows: list[Packed], places: Iterable[Place] = ()) -> Kept:
        """Run whole sequences and keep what later runs start from."""
        batch = self.pack(rows)
        wanted = set(places)
        streams = [Site("resid_pre", i) for i in range(self.n_layers)]
        streams.append(Site("resid_post", self.n_layers - 1))
        inner = [Site(*place) for place in sorted(wanted) if place[0] in HOOKED]
        cache = RunCache(keep=True)
        taps, tapped = Taps(), dict[Place, Tensor]()
        for kind, layer in wanted:
            if kind == "q":
                taps.queries[layer] = _keeper(tapped, (kind, layer))
            elif kind == "pattern":
                taps.patterns[layer] = _keeper(tapped, (kind, layer))
        masks = {window: self._additive(seen) for window, seen in batch.visible.items()}
        with recording(self.hf, [*streams, *inner]) as seen, self._watching(), _tapped(self, taps):
            final = self._forward(batch.tokens, None, batch.positions, masks, cache)
        lost = [f"{kind}.{layer}" for kind, layer in sorted(wanted)
                if kind in ("q", "pattern") and (kind, layer) not in tapped]  # fmt: skip
        if lost or len(cache.kept) < self.n_layers:
            raise InputError(
                f"{type(self.hf).__name__} keeps its attention to itself: "
                + (f"no {', '.join(lost)}" if lost else "no keys and values reach a cache")
                + ", so it cannot be patched here; `probes doctor` says what can be read."
            )
        values: dict[Place, Tensor] = dict(tapped)
        for site in inner:
            found = seen[site]
            heads = (self.n_heads, -1) if site.kind == "z" else ()
            values[site.kind, site.layer] = found.reshape(*found.shape[:2], *(heads or (-1,)))
        for kind, layer in wanted:
            if kind in ("k", "v"):
                values[kind, layer] = cache.kept[layer][kind == "v"].transpose(1, 2)
        return Kept(
            batch,
            tuple(seen[site] for site in streams),
            tuple(cache.kept[i] for i in range(self.n_layers)),
            values,
            final,
        )

    def resume(
        self,
        kept: Kept,
        run: Run,
        entry: Residual,
        layer: int,
        edits: Mapping[Place, Callable[[Tensor], Tensor]],
        taps: Taps,
    ) -> Float[Tensor, "batch tail d_model"]:
        """Final hidden states of what is read, with `entry` as the stream before `layer`.

        edits: at places other than the entry; those behind the last block's keys get the slots that
        are read alone.
        """
        rows, n_past = run.rows, run.unrun.shape[1]

        def cached(i: int) -> tuple[Tensor, Tensor]:
            keys, values = kept.caches[i]
            return keys[rows, :, :n_past], values[rows, :, :n_past]

        def edit(kind: str, i: int, computed: Tensor) -> Tensor:
            act = edits.get((kind, i))
            return computed if act is None else act(computed.transpose(1, 2)).transpose(1, 2)

        cache = RunCache(cached, edit=edit if any(p[0] in ("k", "v") for p in edits) else None)
        masks = self._resumed_masks(kept.batch, run)
        positions = kept.batch.positions[rows[:, None], run.index]
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._entering(layer, entry))
            if run.attended:
                given = kept.values["z", layer][rows[:, None], run.index].flatten(2)
                stack.enter_context(attended(self.hf, layer, given))
            stack.enter_context(_edited(self, edits))
            stack.enter_context(_tapped(self, taps))
            if run.n_lead:
                stack.enter_context(reading_last(self.blocks[-1], run.n_lead, cache))
            final = self._forward(None, entry, positions, masks, cache)
        return final[:, run.n_lead :]

    def logits(self, hidden: Float[Tensor, "read d_model"]) -> Float[Tensor, "read d_vocab"]:
        """The model's own unembedding, with its scaling and soft-capping, of these states alone."""

        def given(*_: Any, **__: Any) -> Any:
            from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

            return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=hidden[None])

        trunks = {id(module): module for module in (self.hf.base_model, self.hf.get_decoder())}
        with contextlib.ExitStack() as stack:
            for module in trunks.values():
                stack.enter_context(replaced(module, given))
            found: Tensor = self.hf(inputs_embeds=hidden[None], use_cache=False).logits[0]
        return found

    def _forward(
        self,
        tokens: Tensor | None,
        entry: Tensor | None,
        positions: Tensor,
        masks: dict[int | None, Tensor],
        cache: RunCache,
    ) -> Tensor:
        longest = None if None in masks else next(iter(masks))
        handles = []
        for block, window in zip(self.blocks, self._windows, strict=True):
            chosen = window if window in masks else None
            if chosen != longest and len(masks) > 1:
                handles.append(
                    block.register_forward_pre_hook(_masked(masks[chosen]), with_kwargs=True)
                )
        try:
            found: Tensor = self.hf.base_model(
                input_ids=tokens,
                inputs_embeds=entry,
                attention_mask=masks[longest],
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
        finally:
            for handle in handles:
                handle.remove()
        return found

    def _resumed_masks(self, batch: PackedBatch, run: Run) -> dict[int | None, Tensor]:
        """Who sees whom: keys are the kept positions that are not run, then those that are."""
        n_run, n_past = run.index.shape[1], run.unrun.shape[1]
        itself = torch.eye(n_run, dtype=torch.bool, device=run.index.device)
        masks = {}
        for window, visible in batch.visible.items():
            seen = visible[run.rows[:, None], run.index]
            past = seen[:, :, :n_past] & run.unrun[:, None, :]
            here = seen.gather(2, run.index[:, None, :].expand(-1, n_run, -1))
            here = here & run.real[:, None, :]
            masks[window] = self._additive(torch.cat([past, here | itself], 2))
        return masks

    def _additive(self, seen: Tensor) -> Tensor:
        dtype = next(self.hf.get_input_embeddings().parameters()).dtype
        low = torch.finfo(dtype).min
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, low)[
            :, None
        ]

    @contextlib.contextmanager
    def _entering(self, layer: int, entry: Tensor) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for i in range(layer):
                stack.enter_context(replaced(self.blocks[i], self._passing(i, entry)))
            if layer == 0:

                def put(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                    if args:
                        return (entry, *args[1:]), kwargs
                    return args, {**kwargs, "hidden_states": entry}

                handle = self.blocks[0].register_forward_pre_hook(
                    put, with_kwargs=True, prepend=True
                )
                stack.callback(handle.remove)
            yield

    def _passing(self, i: int, entry: Tensor) -> Callable[..., Any]:
        return lambda *_, **__: (entry, None) if self._tuples[i] else entry

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        """Note which blocks give a tuple, as a block that is passed over must too, and what may be cut."""

        def note(i: int) -> Callable[..., None]:
            def hook(_: nn.Module, __: object, output: object) -> None:
                self._tuples[i] = isinstance(output, tuple)

            return hook

        def look(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.reads_last = can_be_cut(self.hf, args, kwargs)

        handles = [block.register_forward_hook(note(i)) for i, block in enumerate(self.blocks)]
        handles.append(self.blocks[-1].register_forward_pre_hook(look, with_kwargs=True))
        try:
            with ends_in_projection(self.hf) as found:
                yield
        finally:
            for handle in handles:
                handle.remove()
        self.skips_attention = all(found) and bool(found)


@contextlib.contextmanager
def _edited(trunk: Trunk, edits: Mapping[Place, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for place, act in edits.items():
            if place[0] not in TAPPED:
                stack.enter_context(editing(trunk.hf, site_of(place, trunk.n_layers), act))
        yield


@contextlib.contextmanager
def _tapped(trunk: Trunk, taps: Taps) -> Iterator[None]:
    with tapping(trunk.hf, taps) if taps.queries or taps.patterns else contextlib.nullcontext():
        yield


def _keeper(kept: dict[Place, Tensor], place: Place) -> Callable[[Tensor], None]:
    def keep(found: Tensor) -> None:
        kept[place] = found.clone().transpose(1, 2)

    return keep


def _masked(mask: Tensor) -> Callable[..., Any]:
    def put(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, "attention_mask": mask}

    return put


def _windows(config: Any, n_layers: int) -> list[int | None]:
    """The attention window of each layer, None where it looks back all the way."""
    window = getattr(config, "sliding_window", None)
    if window is None or not getattr(config, "use_sliding_window", True):
        return [None] * n_layers
    types = getattr(config, "layer_types", None) or ["sliding_attention"] * n_layers
    return [int(window) if kind == "sliding_attention" else None for kind in types]
