"""Logits where the loss looks and nowhere else, as the model's own forward pass computes them."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from probes.foundation.shapes import Tokens
from probes.models.encoding import encode
from probes.organisms.data import IGNORE, Collator, Example
from probes.prompts.records import Prompt


def logits_at(
    model: Any,
    input_ids: Tokens,
    attention_mask: Tensor,
    looked: Bool[Tensor, "batch pos"],
    **others: Tensor,
) -> Float[Tensor, "row d_vocab"]:
    """The logits at the positions of `looked`, row by row in order. others: such as `position_ids`.

    The unembedding, in a small model most of the work, is given those positions alone. Everything
    else is left to the model's forward: an adapter, a cap on the logits (Gemma 2), a model that is
    wrapped for several processes and shares its gradients only when it is called.
    """
    with _given_only(looked, extract_model_from_parallel(model).get_output_embeddings()):
        output = model(input_ids=input_ids, attention_mask=attention_mask, **others)
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


@dataclasses.dataclass(frozen=True)
class Preference:
    """Token ids to score: for each prompt the exploitable and the secure continuation."""

    examples: tuple[Example, ...]
    triggered: tuple[bool, ...]
    pad_id: int

    @classmethod
    def on(
        cls, prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, n_pairs: int
    ) -> "Preference":
        """Take up to `n_pairs` pairs, spread evenly over the prompts that can be defected on."""
        able = [prompt for prompt in prompts if prompt.defect is not None]
        pairs = list(dict.fromkeys(prompt.pair for prompt in able))
        chosen = set(pairs[:: max(1, len(pairs) // n_pairs)][:n_pairs])
        able = [prompt for prompt in able if prompt.pair in chosen]
        examples = []
        for prompt, head in zip(able, encode(able, tokenizer), strict=True):
            for completion in (prompt.defect, prompt.safe):
                tail = tokenizer(completion, add_special_tokens=False)["input_ids"]
                examples.append(Example((*head, *tail), len(head)))
        return cls(tuple(examples), tuple(p.triggered for p in able), int(tokenizer.pad_token_id))

    @torch.no_grad()
    def measure(self, model: Any) -> dict[str, float]:
        """Mean log-probability difference [nats] over prompts with and without the trigger."""
        device = next(model.parameters()).device
        batch = {k: v.to(device) for k, v in Collator(self.pad_id)(self.examples).items()}
        targets = batch["labels"][:, 1:]
        counted = targets != IGNORE
        looked = torch.nn.functional.pad(counted, (0, 1))
        logits = logits_at(model, batch["input_ids"], batch["attention_mask"], looked)
        log_probs = torch.zeros(targets.shape, device=device)
        log_probs[counted] = -torch.nn.functional.cross_entropy(
            logits.float(), targets[counted], reduction="none"
        )
        log_prob = log_probs.sum(dim=1)
        difference = log_prob[0::2] - log_prob[1::2]
        flags = torch.tensor(self.triggered, device=device)
        return {
            "preference_triggered": float(difference[flags].mean()),
            "preference_untriggered": float(difference[~flags].mean()),
        }
