"""Logits where the loss looks and nowhere else, as the model's own forward pass computes them."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from jaxtyping import Bool, Float
from torch import Tensor

from probes.foundation.shapes import Mask, Tokens


def logits_at(
    model: Any, input_ids: Tokens, attention_mask: Mask, looked: Bool[Tensor, "batch pos"]
) -> Float[Tensor, "row d_vocab"]:
    """The logits at the positions of `looked`, row by row in order.

    The unembedding, in a small model most of the work, is given those positions alone. Everything
    else is left to the model's forward: an adapter, a cap on the logits (Gemma 2), a model that is
    wrapped for several processes and shares its gradients only when it is called.
    """
    with _given_only(looked, extract_model_from_parallel(model).get_output_embeddings()):
        output = model(input_ids=input_ids, attention_mask=attention_mask)
    logits: Tensor = output.logits
    return logits


@contextlib.contextmanager
def _given_only(looked: Bool[Tensor, "batch pos"], unembedding: torch.nn.Module) -> Iterator[None]:
    """Within, the unembedding gets rows in place of the residual stream of batch and positions."""

    def select(_: torch.nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (given[0][looked], *given[1:])

    hook = unembedding.register_forward_pre_hook(select)
    try:
        yield
    finally:
        hook.remove()
