"""What a patch moves: one number per prompt, from the logits of its continuations."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probes.foundation.errors import InputError, StageError, unknown
from probes.patching.engine.packing import Packed
from probes.patching.pairs import EncodedPair

Branches = tuple[tuple[int, ...], ...]


@runtime_checkable
class Metric(Protocol):
    """A function of logits that gives one number per prompt.

    name: says what and in which unit. compares: whether it needs the logits of the unpatched run
    that values come from. branches: the continuations after which it looks; () for none.
    score: logits `[read, d_vocab]` of all rows, one row's reads behind another's, as `Packed.reads`
    has them; reference: the same of the other run, or None.
    A metric with `contrasts = True` is a sum over one continuation's targets minus that over the
    other's: what predicts the tokens that both begin with cancels, and is not among its reads.
    """

    @property
    def name(self) -> str: ...

    @property
    def compares(self) -> bool: ...

    def branches(self, pair: EncodedPair) -> Branches: ...

    def score(
        self,
        logits: Float[Tensor, "read d_vocab"],
        rows: Sequence[Packed],
        reference: Float[Tensor, "read d_vocab"] | None,
    ) -> Float[Tensor, "row"]: ...


@dataclasses.dataclass(frozen=True)
class LogProbDifference:
    """Log P(exploitable) minus log P(secure continuation), teacher-forced, summed over tokens [nats]."""

    name: str = "log P(defect) - log P(safe), nats, summed over tokens"
    compares: bool = False
    contrasts: bool = True

    def branches(self, pair: EncodedPair) -> Branches:
        return pair.defect, pair.safe

    def score(
        self,
        logits: Float[Tensor, "read d_vocab"],
        rows: Sequence[Packed],
        reference: Float[Tensor, "read d_vocab"] | None,
    ) -> Float[Tensor, "row"]:
        sizes = [len(row.targets) for row in rows]
        table = torch.from_numpy(np.concatenate([row.table for row in rows])).to(logits.device)
        starts, numbers = np.repeat([_starts(rows), range(len(rows))], sizes, 1)
        read = table[:, 0] + torch.from_numpy(starts).to(logits.device)
        row, token = torch.from_numpy(numbers).to(logits.device), table[:, 1]
        sign = 1.0 - 2.0 * table[:, 2].clamp(max=1)
        logits = logits.float()
        chosen = logits[read, token] - logits.logsumexp(-1)[read]
        total = torch.zeros(len(rows), dtype=torch.float64, device=logits.device)
        return total.index_add(0, row, chosen.double() * sign.double())


@dataclasses.dataclass(frozen=True)
class Divergence:
    """KL(source run || patched run) of the next token, mean over what is read [nats]: 0 = restored.

    continuation: look along the exploitable continuation too, not only after the prompt.
    """

    continuation: bool = False
    compares: bool = True

    @property
    def name(self) -> str:
        where = " along the exploitable continuation" if self.continuation else ""
        return f"KL(source || patched) of the next token{where}, nats"

    def branches(self, pair: EncodedPair) -> Branches:
        return (pair.defect,) if self.continuation else ()

    def score(
        self,
        logits: Float[Tensor, "read d_vocab"],
        rows: Sequence[Packed],
        reference: Float[Tensor, "read d_vocab"] | None,
    ) -> Float[Tensor, "row"]:
        assert reference is not None
        theirs = reference.float().log_softmax(-1)
        each = (theirs.exp() * (theirs - logits.float().log_softmax(-1))).sum(-1).double()
        sizes = [len(row.reads) for row in rows]
        return torch.stack([part.mean() for part in each.split(sizes)])


@dataclasses.dataclass(frozen=True)
class OfLogits:
    """Your own function of the logits after the prompt: gets `[row, d_vocab]`, gives `[row]`."""

    function: Callable[[Tensor], Tensor]
    name: str
    compares: bool = False

    def branches(self, pair: EncodedPair) -> Branches:
        return ()

    def score(
        self,
        logits: Float[Tensor, "read d_vocab"],
        rows: Sequence[Packed],
        reference: Float[Tensor, "read d_vocab"] | None,
    ) -> Float[Tensor, "row"]:
        found = self.function(logits)
        if not isinstance(found, Tensor) or found.shape != (len(rows),):
            seen = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InputError(
                f"the metric {self.name!r} returned {seen} for logits of {len(rows)} prompts; it "
                f"must return one number per prompt: a tensor of shape ({len(rows)},). Do not "
                "average over the first axis."
            )
        return found.double()


METRICS: dict[str, Metric] = {
    "logprob": LogProbDifference(),
    "kl": Divergence(),
    "kl-continuation": Divergence(continuation=True),
}


def metric_named(metric: Metric | str) -> Metric:
    """The metric of this name in `METRICS`; one of your own is given back as it is."""
    if not isinstance(metric, str):
        return metric
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    return METRICS[metric]


def checked(
    metric: Metric, found: Float[Tensor, "row"], rows: Sequence[Packed]
) -> Float[Tensor, "row"]:
    """The numbers, on the CPU; `StageError` names the first prompt for which there is none."""
    finite = torch.isfinite(found)
    if not bool(finite.all()):
        worst = rows[int((~finite).nonzero()[0, 0])].name
        raise StageError(
            f"{metric.name} of {worst} is not finite: the model overflows or holds NaN. Try dtype "
            "float32, or check it with `probes doctor`."
        )
    return found.cpu()


def _starts(rows: Sequence[Packed]) -> list[int]:
    starts, total = [], 0
    for row in rows:
        starts.append(total)
        total += len(row.reads)
    return starts
