"""Which part of the model tells which: one part's change, carried to one reader and to nobody else.

A cell says that a part matters; a path says to whom. The sender's value comes from the other run, all that
other attention layers and MLPs write stays as it is in the run that is patched, and only the reader sees
the difference; then the model goes on from the reader as usual (Wang et al. 2022, arXiv 2211.00593;
Goldowsky-Dill et al. 2023, arXiv 2304.05969). TransformerLens has this from head to head
(`patching.get_act_patch_direct_path`), which the tests compare with.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from probes.foundation.errors import InputError, StageError, unknown
from probes.foundation.progress import bar
from probes.foundation.seeds import derive_seed
from probes.models import anatomy
from probes.models.loading import Model
from probes.patching.engine.scoring import (
    Prepared,
    Scorer,
    chosen,
    groups,
    prepare_whole,
    run_from,
    score,
)
from probes.patching.engine.taps import Act
from probes.patching.engine.trunk import Place, Trunk
from probes.patching.jobs import Settings
from probes.patching.measures import LogProbDifference, Metric, checked
from probes.patching.pairs import EncodedPair
from probes.patching.parts import EVERYWHERE, Cell, Part, check_kind, n_heads
from probes.patching.refusals import check_difference, check_resampling, check_room
from probes.patching.result import Paths, summarise
from probes.patching.sources import Plan
from probes.patching.spans import Column

SENDERS = ("resid_pre", "resid_post", "z", "attn_out", "mlp_out")
# What a reader makes of its input; nothing else follows from that input.
READERS = {"q": "q", "k": "k", "v": "v", "head_in": "z", "attn_in": "attn_out", "mlp_in": "mlp_out"}
LOGITS = "logits"
LOGITS_AT: Place = (LOGITS, -1)  # under which the final states of a run are kept
WITH_HEADS = ("q", "k", "v", "head_in")


@dataclasses.dataclass(frozen=True)
class Reader:
    """Where a path ends: the input of one part of the model.

    kind: "q", "k" or "v" of a head (or of all heads of a layer), "head_in" (a head's three inputs at
    once), "attn_in" (all heads), "mlp_in", or "logits", what the unembedding reads. layer: -1 for
    logits. head: of k and v a key head; None for all. column: where it reads; `EVERYWHERE` for all
    tokens, those of the continuations too.
    """

    kind: str
    layer: int = -1
    head: int | None = None
    column: int = EVERYWHERE

    def __str__(self) -> str:
        if self.kind == LOGITS:
            return LOGITS
        return f"{self.kind}.{self.layer}" + ("" if self.head is None else f".{self.head}")

    @property
    def place(self) -> Place:
        return READERS.get(self.kind, self.kind), self.layer


def readers_of(
    hf: object,
    kinds: Sequence[str],
    *,
    layers: Sequence[int] | None = None,
    heads: bool = False,
) -> list[Reader]:
    """Readers of these kinds in all or some layers, reading everywhere; heads: one for each head."""
    every = range(len(anatomy.blocks(hf))) if layers is None else layers
    found = []
    for kind in kinds:
        if kind == LOGITS:
            found.append(Reader(LOGITS))
            continue
        if kind not in READERS:
            raise unknown("kind of reader", kind, [*READERS, LOGITS])
        numbers: list[int | None] = [None]
        if heads and kind in WITH_HEADS:
            numbers = list(range(n_heads(hf, READERS[kind])))
        found += [Reader(kind, layer, head) for layer in every for head in numbers]
    return found


def patch_paths(
    model: Model,
    pairs: Sequence[EncodedPair],
    senders: Sequence[Cell],
    readers: Sequence[Reader],
    columns: Sequence[Column] = (),
    *,
    metric: Metric | None = None,
    plan: Plan | None = None,
    through_mlps: bool = False,
    n_boot: int = 1000,
    n_flips: int = 2000,
    settings: Settings | None = None,
    seed: int = 0,
) -> Paths:
    """The effect of every path from a sender to a reader that can see it, in every pair.

    senders: from `grid_cells` or `cell_set`, of the kinds in `SENDERS`. Readers that come before a
    sender are left out. through_mlps: let MLPs between sender and reader answer to the change, as
    Wang et al. do, instead of holding them too.
    Raises `InputError` for a sender or reader that the architecture lacks, or if no reader can see
    any sender; `StageError` where noise in a sender does not reach a reader.
    """
    metric, plan, settings = (
        metric or LogProbDifference(),
        plan or Plan(seed=seed),
        settings or Settings(),
    )
    _check(model, pairs, senders, readers, n_boot or n_flips)
    paths = [(s, r) for s, sender in enumerate(senders) for r in readers if sees(model, r, sender)]
    if not paths:
        raise InputError(
            f"no path: none of {', '.join(map(str, readers))} comes after "
            f"{', '.join(cell.site for cell in senders)}"
        )
    trunk = Trunk(model.hf, model.pad_id)
    at_once = settings.tokens_at_once(trunk.device)
    scorer = Scorer(trunk, metric, pairs, columns, plan, at_once)
    written = {(kind, i) for kind in ("attn_out", "mlp_out", "z") for i in range(trunk.n_layers)}
    places = sorted(written | {part.place for cell in senders for part in cell.parts})
    lengths = [p.n_prompt + len(p.safe) + len(p.defect) for p in pairs]
    batches = groups(lengths, at_once)
    if plan.values == "mean":
        for members in batches:
            scorer.add_means(members, places, model.sinks.rule)
    patched = np.zeros((len(paths), len(pairs)))
    unpatched, other = np.empty((2, len(pairs)))
    with bar("paths", total=len(paths) * len(pairs)) as shown, torch.no_grad():
        for members in batches:
            prepared = prepare_whole(scorer, members, places)
            unpatched[list(members)], other[list(members)] = prepared.unpatched, prepared.other
            run = _Run(scorer, prepared, through_mlps)
            for s, sender in enumerate(senders):
                numbers = [i for i, (own, _) in enumerate(paths) if own == s]
                ends = [paths[i][1] for i in numbers]
                if members[0] == 0:
                    run.check_reached(sender, ends, seed)
                patched[np.ix_(numbers, members)] = run.effects(sender, ends)
                shown.update(len(numbers) * len(members))
    check_difference(metric.name, model.name, unpatched, other, model.dtype)
    effects = summarise(
        model, metric, plan, pairs, [senders[s] for s, _ in paths], unpatched=unpatched,
        other=other, patched=patched, n_boot=n_boot, n_flips=n_flips, seed=seed,
    )  # fmt: skip
    tails = pd.DataFrame(
        {
            "reader": [r.kind for _, r in paths],
            "reader_layer": pd.array(
                [None if r.kind == LOGITS else r.layer for _, r in paths], "Int64"
            ),
            "reader_head": pd.array([r.head for _, r in paths], "Int64"),
            "reader_label": [
                "everywhere" if r.column == EVERYWHERE else columns[r.column].label
                for _, r in paths
            ],
        }
    )
    return Paths.of(effects, tails, through_mlps)


def sees(model: Model, reader: Reader, sender: Cell) -> bool:
    """Whether something that the sender writes is there when the reader reads."""
    if reader.kind == LOGITS:
        return True
    parallel = "resid_mid" in anatomy.missing(model.hf)
    for part in sender.parts:
        same = part.kind in ("z", "attn_out") and reader.kind == "mlp_in" and not parallel
        first = part.layer if part.kind == "resid_pre" or same else part.layer + 1
        if reader.layer >= first:
            return True
    return False


@dataclasses.dataclass(frozen=True)
class _Run:
    """Paths of one batch of pairs; `prepared.kept` holds what every part writes in the unpatched run."""

    scorer: Scorer
    prepared: Prepared
    through_mlps: bool

    def effects(self, sender: Cell, readers: Sequence[Reader]) -> np.ndarray:
        """The metric by reader and pair."""
        kept = self.prepared.kept
        read = self._sent(sender, readers, self.prepared.values)
        found = []
        for reader in readers:
            final = read[LOGITS_AT]
            if reader.kind != LOGITS:
                values = read[reader.place]
                put = partial(self._put, reader.head, reader.column, values)
                entry = kept.streams[reader.layer]
                acts: dict[Place, Act] = {reader.place: put}
                final = run_from(self.scorer.trunk, kept, reader.layer, entry, acts)
            scores = score(self.scorer, self.prepared, final)
            found.append(checked(self.scorer.metric, scores, kept.batch.rows).numpy())
        return np.stack(found)

    def check_reached(self, sender: Cell, readers: Sequence[Reader], seed: int) -> None:
        """Noise in the sender has to change what each reader makes of its input."""
        noise = {}
        for place, values in self.prepared.values.items():
            generator = torch.Generator().manual_seed(derive_seed(seed, "noise", place))
            drawn = torch.randn(values.shape, generator=generator).to(values)
            noise[place] = values + drawn * values.square().mean().sqrt().clamp_min(1e-3)
        moved = self._sent(sender, readers, noise)
        still = self._sent(sender, readers, self.prepared.kept.values | self._streams(sender))
        for reader in readers:
            if not bool((moved[reader.place] != still[reader.place]).any()):
                raise StageError(
                    f"noise in {sender.site} does not reach {reader}: this path patches nothing. Run "
                    "`probes doctor` on this model."
                )

    def _sent(
        self, sender: Cell, readers: Sequence[Reader], values: dict[Place, Tensor]
    ) -> dict[Place, Tensor]:
        """What readers make of their inputs when the sender alone has changed; final states too."""
        kept, trunk = self.prepared.kept, self.scorer.trunk
        layer = sender.layer
        parts: dict[Place, list[Part]] = {}
        for part in sender.parts:
            parts.setdefault(part.place, []).append(part)
        wanted = {reader.place for reader in readers}
        seen: dict[Place, Tensor] = {}
        open_heads = {i for kind, i in parts if kind == "z"}

        def act(place: Place, held: bool, found: Tensor) -> Tensor:
            if place in wanted:
                seen[place] = found.clone()
            result = kept.at(place).to(found) if held else found
            for part in parts.get(place, ()):
                result = self._put(part.head, part.column, values[place], result)
            return result

        acts: dict[Place, Act] = {}
        for i in range(layer, trunk.n_layers):
            for kind in ("q", "k", "v"):
                if (kind, i) in wanted:
                    acts[kind, i] = partial(act, (kind, i), False)
            if i in open_heads or ("z", i) in wanted:
                acts["z", i] = partial(act, ("z", i), i in open_heads)
            acts["attn_out", i] = partial(act, ("attn_out", i), i not in open_heads)
            acts["mlp_out", i] = partial(act, ("mlp_out", i), not self.through_mlps)
        for place in parts:
            if place[0] == "stream" and place != ("stream", layer):
                acts[place] = partial(act, place, False)
        entry = kept.streams[layer]
        for part in parts.get(("stream", layer), ()):
            entry = self._put(None, part.column, values["stream", layer], entry)
        seen[LOGITS_AT] = run_from(trunk, kept, layer, entry, acts)
        return seen

    def _put(self, head: int | None, column: int, values: Tensor, found: Tensor) -> Tensor:
        mask = chosen(self.scorer, self.prepared, column).to(found.device)
        mask = mask.reshape(*mask.shape, *(1,) * (found.ndim - 2))
        if head is not None:
            mask = mask & (torch.arange(found.shape[2], device=found.device) == head)[:, None]
        return torch.where(mask, values.to(found), found)

    def _streams(self, sender: Cell) -> dict[Place, Tensor]:
        kept = self.prepared.kept
        places = {part.place for part in sender.parts if part.place[0] == "stream"}
        return {place: kept.at(place) for place in places}


def _check(
    model: Model,
    pairs: Sequence[EncodedPair],
    senders: Sequence[Cell],
    readers: Sequence[Reader],
    resampled: int,
) -> None:
    if not pairs or not senders or not readers:
        raise InputError(
            f"no path: {len(senders)} senders, {len(readers)} readers and {len(pairs)} pairs"
        )
    check_resampling(pairs, resampled)
    for kind in ("z", "attn_out", "mlp_out"):
        check_kind(model.hf, kind)  # what is held still has to be found
    for cell in senders:
        for part in cell.parts:
            if part.kind not in SENDERS:
                raise unknown("kind of sender", part.kind, SENDERS)
    for reader in readers:
        if reader.kind == LOGITS:
            continue
        if reader.kind not in READERS:
            raise unknown("kind of reader", reader.kind, [*READERS, LOGITS])
        if reader.head is not None and reader.kind not in WITH_HEADS:
            raise InputError(
                f"{reader.kind} has no heads; those with heads are {', '.join(WITH_HEADS)}"
            )
        if not 0 <= reader.layer < model.n_layers:
            raise InputError(f"no reader {reader}: this model has layers 0 to {model.n_layers - 1}")
    check_room(pairs, model)
