"""A GPT-2 in which everything that is patched acts linearly: no norms, no bends, attention that is even."""

import torch
from patching_cases import random_model
from torch import nn

from probes.models.loading import Model


def linear_model(tokenizer) -> Model:
    """Queries are zero, so every head looks evenly at what came before, whatever the prompt says."""
    model = random_model("gpt2", tokenizer)
    trunk = model.hf.transformer
    for block in trunk.h:
        width = block.attn.embed_dim
        block.attn.c_attn.weight[:, :width] = 0
        block.attn.c_attn.bias[:width] = 0
        block.mlp.act = nn.Identity()
        block.ln_1 = nn.LayerNorm(width, elementwise_affine=False)
        block.ln_1.forward = block_identity
        block.ln_2 = nn.LayerNorm(width, elementwise_affine=False)
        block.ln_2.forward = block_identity
        block.attn.c_attn.weight.mul_(5)  # or one position of many would hardly count
    trunk.wte.weight.mul_(10)
    trunk.ln_f = nn.Identity()
    return model


def block_identity(x: torch.Tensor) -> torch.Tensor:
    return x


def logit_of_the_first(logits: torch.Tensor) -> torch.Tensor:
    """A metric that is linear in the logits."""
    return logits[:, 7] - 0.5 * logits[:, 11]
