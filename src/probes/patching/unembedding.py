"""The direction that tells two tokens apart at the end of the model, in logits."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.foundation.errors import InputError
from probes.patching.canary import TOLERANCE
from probes.patching.engine.trunk import Trunk


def contrast(
    trunk: Trunk,
    final: Float[Tensor, "row d_model"],
    plus: Int[Tensor, "row"],
    minus: Int[Tensor, "row"],
) -> tuple[Float[Tensor, "row d_model"], Float[Tensor, "row"]]:
    """Per row a direction and a constant: direction . final + constant = logit of plus minus of minus.

    Scaling of the logits is in both. Where the model bends its logits (a soft cap, as in Gemma 2) the
    difference is that before the bend, which has the same sign. Raises `InputError` where the logits are
    not a linear map of the final states otherwise.
    """
    head = trunk.hf.get_output_embeddings()
    weight, own = head.weight.double(), getattr(head, "bias", None)
    bias = torch.zeros(len(weight), device=weight.device).double() if own is None else own.double()
    model = trunk.logits(final).double()
    raw = final.double() @ weight.T + bias
    cap = getattr(trunk.hf.config.get_text_config(), "final_logit_softcapping", None)
    factor = 1.0
    if cap is None:
        factor = float((model * raw).sum() / raw.square().sum())
        expected = raw * factor
    else:
        expected = cap * torch.tanh(raw / cap)
    error = float((expected - model).abs().max())
    if not error <= 10 * TOLERANCE[final.dtype] * max(1.0, float(model.abs().max())):
        raise InputError(
            f"the logits of {type(trunk.hf).__name__} are not its unembedding times its final states "
            f"(they differ by {error:.2g}), so nothing can be attributed to them directly. Patch the "
            "parts with `patch_cells` instead."
        )
    return (weight[plus] - weight[minus]) * factor, (bias[plus] - bias[minus]) * factor
