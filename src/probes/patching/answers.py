"""Where two continuations part, and what stands there: the one logit difference that a lens can read."""

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from probes.foundation.errors import InputError
from probes.foundation.progress import bar
from probes.models.loading import Model
from probes.patching.engine.packing import pack
from probes.patching.engine.trunk import Kept, Place, Trunk
from probes.patching.pairs import EncodedPair
from probes.patching.refusals import check_room
from probes.patching.whole_batch import groups, run_from

RUNS = ("clean", "corrupted")


@dataclasses.dataclass(frozen=True)
class Parting:
    """The first token in which the continuations differ. at: how many they share before it."""

    at: int
    defect: int
    safe: int


def parting(pair: EncodedPair) -> Parting:
    """Raises `InputError` where one continuation is the beginning of the other."""
    for at, (defect, safe) in enumerate(zip(pair.defect, pair.safe, strict=False)):
        if defect != safe:
            return Parting(at, defect, safe)
    raise InputError(
        f"pair {pair.name!r}: one continuation is the beginning of the other ({len(pair.defect)} and "
        f"{len(pair.safe)} tokens), so there is no token at which they part. Give continuations that "
        "differ."
    )


@dataclasses.dataclass(frozen=True)
class Recorded:
    """Some pairs, run whole in one version. reads: per pair, the packed position before they part."""

    run: str
    members: tuple[int, ...]
    kept: Kept
    reads: tuple[int, ...]
    partings: tuple[Parting, ...]

    def at_reads(self, values: Float[Tensor, "batch pos *width"]) -> Tensor:
        """One token per pair: the one whose logits decide between the two continuations."""
        return values[torch.arange(len(self.reads)), list(self.reads)]


def recorded(
    model: Model,
    pairs: Sequence[EncodedPair],
    places: Sequence[Place],
    batch_tokens: int,
    description: str,
) -> Iterator[tuple[Trunk, Recorded]]:
    """Both versions of all pairs with their continuations, in batches; the values at `places` kept."""
    if not pairs:
        raise InputError("a lens needs at least one pair")
    check_room(pairs, model)
    trunk = Trunk(model.hf, model.pad_id)
    lengths = [p.n_prompt + len(p.safe) + len(p.defect) for p in pairs]
    where = [parting(pair) for pair in pairs]
    with bar(description, total=2 * len(pairs)) as shown, torch.no_grad():
        for members in groups(lengths, batch_tokens):
            for run in RUNS:
                rows = [
                    pack(
                        f"pair {pairs[i].name!r}",
                        getattr(pairs[i], run),
                        (pairs[i].defect, pairs[i].safe),
                    )
                    for i in members
                ]
                reads = [
                    row.reads[[t for t in row.targets if t.branch == 0][where[i].at].read]
                    for i, row in zip(members, rows, strict=True)
                ]
                partings = tuple(where[i] for i in members)
                yield (
                    trunk,
                    Recorded(run, members, trunk.record(rows, places), tuple(reads), partings),
                )
                shown.update(len(members))


def final_norm(
    trunk: Trunk, kept: Kept, stream: Float[Tensor, "batch pos d_model"]
) -> Float[Tensor, "batch pos d_model"]:
    """What the model puts between its last block and its unembedding, done to any stream."""
    return run_from(trunk, kept, trunk.n_layers, stream, {})
