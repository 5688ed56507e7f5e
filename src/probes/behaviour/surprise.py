"""How surprising a prompt is to a model: a number that tells prompts apart without any probe."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from probes.foundation.errors import InputError, StageError
from probes.foundation.progress import bar
from probes.models.encoding import encode, pad, token_batches
from probes.models.forward import check_lengths, logits, why_not_finite
from probes.models.loading import Model
from probes.prompts.records import Prompt


@torch.inference_mode()
def surprise(
    model: Model, prompts: Sequence[Prompt], *, batch_tokens: int = 8192
) -> Float[np.ndarray, "prompt"]:
    """Mean negative log-likelihood of each prompt's tokens under the model [nats per token].

    The first token has nothing before it and does not count. The logarithm of the perplexity; at
    least 0. batch_tokens: padded tokens per forward pass. Raises `InputError` for no prompts, one of
    fewer than two tokens, or one longer than the model's context.
    """
    if not prompts:
        raise InputError("there are no prompts whose likelihood to measure")
    encoded = encode(prompts, model.tokenizer)
    short = [i for i, tokens in enumerate(encoded) if len(tokens) < 2]
    if short:
        raise InputError(
            f"{len(short)} prompts have one token only (first: prompt {short[0]}): a likelihood needs "
            "a token that follows another"
        )
    check_lengths([len(tokens) for tokens in encoded], model.hf)
    found = np.empty(len(prompts))
    with bar(f"surprise of {model.name}", total=len(prompts)) as shown:
        for members in token_batches([len(tokens) for tokens in encoded], batch_tokens):
            batch = pad([encoded[i] for i in members], model.pad_id)
            rows = logits(model.hf, batch).float().cpu()[:, :-1]
            targets = batch.tokens[:, 1:]
            loss = torch.nn.functional.cross_entropy(  # of rows: six times as fast as of columns
                rows.flatten(0, 1), targets.flatten(), reduction="none"
            ).view_as(targets)
            counted = batch.mask[:, 1:]
            mean = (loss.double() * counted).sum(-1) / counted.sum(-1)
            if not bool(mean.isfinite().all()):
                raise StageError(
                    f"{int((~mean.isfinite()).sum())} of {len(members)} likelihoods are NaN or infinite: "
                    f"{why_not_finite(model.dtype)}"
                )
            found[members] = mean.numpy()
            shown.update(len(members))
    return found
