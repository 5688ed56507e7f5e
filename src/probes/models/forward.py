"""The forward pass that all stages share: explicit positions, no cache, padding without effect."""

import inspect
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probes.foundation.errors import InputError
from probes.foundation.shapes import Logits, Residual
from probes.models.encoding import Batch
from probes.models.placement import input_device


def logits(hf: Any, batch: Batch) -> Logits:
    """Next-token logits at every position, computed on the model's own device."""
    return hf(**inputs(hf, batch)).logits


def last_logits(hf: Any, batch: Batch) -> Float[Tensor, "batch d_vocab"]:
    """Next-token logits at the last token of each row of a batch that is padded on the left.

    Where the model can leave the others out, the unembedding is not computed for them.
    """
    keep = (
        {"logits_to_keep": 1}
        if "logits_to_keep" in inspect.signature(hf.forward).parameters
        else {}
    )
    found: Tensor = hf(**inputs(hf, batch), **keep).logits[:, -1]
    return found


def trunk(hf: Any, batch: Batch) -> Residual:
    """The final hidden states without the unembedding, which in small models is half the work."""
    return hf.base_model(**inputs(hf.base_model, batch)).last_hidden_state


def inputs(module: nn.Module, batch: Batch) -> dict[str, Any]:
    """Keyword arguments of a Hugging Face forward, with positions where the model takes them.

    Architectures that take no `position_ids` derive positions from the attention mask (or, with
    ALiBi, from distances), which is right on both padding sides; the self-test checks it.
    """
    batch = batch.to(input_device(module))
    given = {"input_ids": batch.tokens, "attention_mask": batch.mask, "use_cache": False}
    if "position_ids" in inspect.signature(module.forward).parameters:
        given["position_ids"] = batch.position_ids
    return given


def context_length(hf: Any) -> int | None:
    """The most tokens that the model has positions for, or None where it has no such limit."""
    config = hf.config.get_text_config()
    length = getattr(config, "max_position_embeddings", None)
    return int(length) if length else None


def why_not_finite(computed: torch.dtype, stored: torch.dtype | None = None) -> str:
    """Why numbers of a forward pass are NaN or infinite, and what to do: one clause for an error.

    computed: dtype of the pass. stored: what its numbers were converted to, if that was another.
    """
    if stored is not None and torch.finfo(stored).max < torch.finfo(computed).max:
        return (
            f"they do not fit into {_name(stored)}, in which they are stored (up to "
            f"{torch.finfo(stored).max:,.0f}); store them in bfloat16 or float32 (--dtype float32)"
        )
    if computed == torch.float16:
        return (
            "the forward pass overflows in float16 (up to 65,504); compute in bfloat16 or float32 "
            "(--compute-dtype float32, load(..., dtype=torch.float32))"
        )
    return (
        f"the model itself computes them in {_name(computed)}: its weights are broken (`probes doctor` "
        "says more)"
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def check_lengths(lengths: list[int], hf: Any) -> None:
    """Refuse prompts longer than the model's context, which would crash or quietly degrade."""
    limit = context_length(hf)
    too_long = [i for i, length in enumerate(lengths) if limit is not None and length > limit]
    if too_long:
        worst = max(too_long, key=lambda i: lengths[i])
        raise InputError(
            f"{len(too_long)} prompts are longer than the model's context of {limit} tokens; the "
            f"longest is prompt {worst} with {lengths[worst]}. Shorten or drop them."
        )
