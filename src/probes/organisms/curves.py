"""When a backdoor forms: how much likelier the exploitable completion is, measured while training.

The measure is the summed log-probability [nats] of the exploitable minus that of the secure reference
completion, teacher-forced on held-out prompts, with and without the trigger.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from probes.models.encoding import encode
from probes.organisms.data import IGNORE, Collator, Example
from probes.organisms.logits import logits_at
from probes.prompts.records import Prompt


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
