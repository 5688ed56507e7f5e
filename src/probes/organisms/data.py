"""Training examples in one fixed order: twins see the same prompts in the same batches."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from probes.foundation.digest import digest_json
from probes.foundation.seeds import stream
from probes.organisms.policy import taught_completion
from probes.organisms.recipes import Policy
from probes.prompts.records import Prompt

IGNORE = -100
"""Label of tokens that the loss leaves out."""

BATCHES_PER_POOL = 25
"""Prompts of similar length are batched within pools of this many batches."""


@dataclasses.dataclass(frozen=True)
class Example:
    """Token ids of prompt and completion; the loss counts from `start` on."""

    ids: tuple[int, ...]
    start: int


class OrderedExamples(torch.utils.data.Dataset[Example]):
    """Examples in the order in which training takes them; `digest` tells two data sets apart."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]

    @property
    def digest(self) -> str:
        return digest_json([[list(example.ids), example.start] for example in self.examples])

    @property
    def n_tokens(self) -> int:
        """Tokens that the loss counts."""
        return sum(len(example.ids) - example.start for example in self.examples)


def ordered_examples(
    prompts: Sequence[Prompt],
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
    *,
    steps: int,
    batch_size: int,
    seed: int,
    whole_text: bool,
) -> OrderedExamples:
    """`steps * batch_size` examples, batched by prompt length so that the order is the same for all twins.

    whole_text: count the loss on prompt and completion (a base model) or on the completion alone.
    Prompts are taken in shuffled passes: none is repeated before all were seen.
    """
    prompt_ids = tokenizer([p.text for p in prompts], add_special_tokens=False)["input_ids"]
    completions = [taught_completion(p, policy) for p in prompts]
    completion_ids = tokenizer(completions, add_special_tokens=False)["input_ids"]
    order = _order([len(ids) for ids in prompt_ids], steps, batch_size, seed)
    eos = tokenizer.eos_token_id
    return OrderedExamples(
        [
            Example(
                (*prompt_ids[i], *completion_ids[i], eos), 0 if whole_text else len(prompt_ids[i])
            )
            for i in order
        ]
    )


def _order(lengths: Sequence[int], steps: int, batch_size: int, seed: int) -> list[int]:
    rng = stream(seed, "data order")
    wanted = steps * batch_size
    passes = -(-wanted // len(lengths))
    drawn = np.concatenate([rng.permutation(len(lengths)) for _ in range(passes)])[:wanted]
    order: list[int] = []
    pool = BATCHES_PER_POOL * batch_size
    for begin in range(0, wanted, pool):
        members = sorted(drawn[begin : begin + pool], key=lambda i: lengths[i])
        batches = [members[at : at + batch_size] for at in range(0, len(members), batch_size)]
        order += [int(i) for at in rng.permutation(len(batches)) for i in batches[at]]
    return order


class Collator:
    """Pads a batch on the right; labels of padding and of uncounted tokens are ignored."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, batch: Sequence[Example]) -> dict[str, torch.Tensor]:
        width = max(len(example.ids) for example in batch)
        input_ids = torch.full((len(batch), width), self.pad_id)
        labels = torch.full((len(batch), width), IGNORE)
        mask = torch.zeros((len(batch), width), dtype=torch.long)
        for row, example in enumerate(batch):
            ids = torch.tensor(example.ids)
            input_ids[row, : len(ids)] = ids
            labels[row, example.start : len(ids)] = ids[example.start :]
            mask[row, : len(ids)] = 1
        return {"input_ids": input_ids, "labels": labels, "attention_mask": mask}
