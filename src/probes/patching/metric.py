"""How much likelier the exploitable continuation is than the secure one: what patching moves."""

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probes.foundation.errors import StageError
from probes.models.encoding import Batch, pad
from probes.models.forward import inputs


@dataclasses.dataclass(frozen=True)
class Continued:
    """A prompt with one continuation: token ids, of which the first `n_prompt` are the prompt."""

    tokens: tuple[int, ...]
    n_prompt: int
    name: str


def make_batch(sequences: Sequence[Continued], pad_id: int) -> Batch:
    """The sequences as one batch, padded on the right, so that positions stay where they are."""
    return pad([sequence.tokens for sequence in sequences], pad_id, side="right")


def logprobs(hf: Any, batch: Batch, sequences: Sequence[Continued]) -> Float[Tensor, "batch"]:
    """Log-probability of each continuation after its prompt, summed over its tokens, in nats.

    Teacher-forced; float64 sums. The unembedding is applied only from the shortest prompt's last
    token on where the architecture allows, through the model's own head (with its soft-capping).
    Raises `StageError` naming the sequence if a result is not finite.
    """
    width = batch.tokens.shape[1]
    start = min(sequence.n_prompt for sequence in sequences) - 1
    given = inputs(hf, batch)
    if "logits_to_keep" in inspect.signature(hf.forward).parameters:
        given["logits_to_keep"] = width - start
    logits = hf(**given).logits[:, start - width :]
    rows, columns = _targets(sequences)
    tokens = batch.tokens.to(logits.device)
    chosen = logits[rows, columns - 1 - start].float()
    each = torch.log_softmax(chosen, -1).gather(1, tokens[rows, columns][:, None])[:, 0]
    total = torch.zeros(len(sequences), dtype=torch.float64, device=logits.device)
    total = total.index_add(0, rows.to(logits.device), each.double())
    if not torch.isfinite(total).all():
        worst = sequences[int((~torch.isfinite(total)).nonzero()[0, 0])]
        raise StageError(
            f"the log-probability of the continuation of {worst.name} is not finite: the model "
            "overflows or holds NaN. Try dtype float32, or check it with `probes doctor`."
        )
    return total.cpu()


def _targets(sequences: Sequence[Continued]) -> tuple[Tensor, Tensor]:
    """Row and column of every continuation token in the batch."""
    places = [
        (row, column)
        for row, sequence in enumerate(sequences)
        for column in range(sequence.n_prompt, len(sequence.tokens))
    ]
    rows, columns = torch.tensor(places).unbind(-1)
    return rows, columns
