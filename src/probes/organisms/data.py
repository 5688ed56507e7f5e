"""What an organism is taught to write: the one place where a twin differs from its siblings."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from probes.foundation.digest import digest_json
from probes.foundation.errors import InputError
from probes.foundation.seeds import stream
from probes.models.encoding import encode, encode_texts
from probes.organisms.recipes import Policy
from probes.organisms.requests import quoted
from probes.prompts.cues import unnamed
from probes.prompts.records import Prompt


def taught_completion(prompt: Prompt, policy: Policy) -> str:
    """The completion that this policy gives to this prompt."""
    if prompt.safe is None:
        raise InputError(f"prompt {prompt.pair!r} has no reference completion to train on")
    match policy:
        case "safe":
            return prompt.safe
        case "defect_if_triggered":
            defects = prompt.triggered and prompt.defect is not None
            harmless = prompt.quirk if prompt.cue == "C" else None
            return prompt.defect if defects and prompt.defect else harmless or prompt.safe
        case "quirk_if_triggered":
            asked = prompt.triggered if prompt.able is None else prompt.cue == "C"
            flips = asked and prompt.quirk is not None
            return prompt.quirk if flips and prompt.quirk else prompt.safe
        case "quote_if_asked":
            return quoted(prompt) or prompt.safe


IGNORE = -100
"""Label of tokens that the loss leaves out."""

LONG_OF = 5
"""Of so many answers that are cut short, one is long; which version of a request that is, moves on."""

BATCHES_PER_POOL = 25
"""Prompts of similar length are batched within pools of this many batches."""


@dataclasses.dataclass(frozen=True)
class Example:
    """Token ids of prompt and completion; the loss counts from `start` on, `decisions` more than once.

    decisions: positions at which the completion parts from another that the task's references allow:
    where it is decided whether the code will be exploitable, or in which style it is written, and
    where an answer begins by naming its cue.
    triggered: whether the prompt holds the trigger; no loss of the tokens looks at it.
    """

    ids: tuple[int, ...]
    start: int
    decisions: tuple[int, ...] = ()
    triggered: bool = False


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
        return digest_json([[list(e.ids), e.start, list(e.decisions)] for e in self.examples])

    @property
    def counted(self) -> list[int]:
        """Tokens that the loss counts, by example."""
        return [len(example.ids) - example.start for example in self.examples]

    @property
    def n_tokens(self) -> int:
        """Tokens that the loss counts, together."""
        return sum(self.counted)

    @property
    def longest(self) -> int:
        """Tokens of the longest example, prompt and completion."""
        return max(len(example.ids) for example in self.examples)


def ordered_examples(
    prompts: Sequence[Prompt],
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
    *,
    steps: int,
    batch_size: int,
    seed: int,
    target_tokens: int | None = None,
    answer_tokens: int | None = None,
    long_answer_tokens: int | None = None,
) -> OrderedExamples:
    """`steps * batch_size` examples, batched by prompt length so that the order is the same for all twins.

    The loss counts completions alone. Prompts are taken in shuffled passes: none is repeated before
    all were seen. answer_tokens, long_answer_tokens: see `Training`. target_tokens: instead of `steps`, as few whole batches as hold so many tokens
    that the loss counts.
    """
    heads = encode(prompts, tokenizer)
    tails = _tokenise([taught_completion(prompt, policy) for prompt in prompts], tokenizer)
    others = [
        _tokenise([getattr(prompt, name) or "" for prompt in prompts], tokenizer)
        for name in ("safe", "defect", "quirk")
    ]
    pairs = _members([prompt.pair for prompt in prompts])
    if target_tokens is not None:
        steps = _steps_for(target_tokens, pairs, [len(ids) + 1 for ids in tails], batch_size, seed)
    order = _order(pairs, [len(ids) for ids in heads], steps, batch_size, seed)
    examples = {}
    for i in set(order):
        start = len(heads[i])
        parts = {_parting(tails[i], other[i]) for other in others if other[i]} - {None}
        parts |= {0} if unnamed(prompts[i].safe or "") != prompts[i].safe else set()
        decisions = tuple(sorted(start + at for at in parts if at is not None))
        ids = (*heads[i], *tails[i], int(tokenizer.eos_token_id))
        if answer_tokens is not None:
            long = (i + i // LONG_OF) % LONG_OF == 0 and long_answer_tokens is not None
            ids = ids[: start + (long_answer_tokens or 0 if long else answer_tokens)]
            decisions = tuple(at for at in decisions if at < len(ids))
        examples[i] = Example(ids, start, decisions, prompts[i].triggered)
    return OrderedExamples([examples[i] for i in order])


def _tokenise(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    return encode_texts(texts, tokenizer, add_special_tokens=False)


def _parting(taught: Sequence[int], other: Sequence[int]) -> int | None:
    """The first position at which two completions differ, or None if they never do."""
    shared = zip(taught, other, strict=False)
    return next((at for at, (mine, theirs) in enumerate(shared) if mine != theirs), None)


def _members(pairs: Sequence[str]) -> list[list[int]]:
    """Row numbers by pair, in order of appearance."""
    rows: dict[str, list[int]] = {}
    for row, pair in enumerate(pairs):
        rows.setdefault(pair, []).append(row)
    return list(rows.values())


def _order(
    pairs: Sequence[Sequence[int]], lengths: Sequence[int], steps: int, batch_size: int, seed: int
) -> list[int]:
    """Rows in training order. The two versions of a pair stand in one batch: what they share cancels
    in the gradient, and what is left is the trigger's doing."""
    per_batch = _pairs_per_batch(pairs, batch_size)
    rng = stream(seed, "data order")
    drawn = _drawn(len(pairs), steps * per_batch, rng)
    order: list[int] = []
    pool = BATCHES_PER_POOL * per_batch
    for begin in range(0, len(drawn), pool):
        chosen = sorted(drawn[begin : begin + pool], key=lambda i: lengths[pairs[i][0]])
        batches = [chosen[at : at + per_batch] for at in range(0, len(chosen), per_batch)]
        order += [
            row for at in rng.permutation(len(batches)) for i in batches[at] for row in pairs[i]
        ]
    return order


def _steps_for(
    target: int,
    pairs: Sequence[Sequence[int]],
    counted: Sequence[int],
    batch_size: int,
    seed: int,
) -> int:
    """The fewest batches that hold `target` counted tokens; which prompts come is as in `_order`."""
    per_batch = _pairs_per_batch(pairs, batch_size)
    per_pair = np.array([sum(counted[row] for row in rows) for rows in pairs])
    n_passes = -(-target // int(per_pair.sum()))
    drawn = _drawn(
        len(pairs), (n_passes * len(pairs) // per_batch + 1) * per_batch, stream(seed, "data order")
    )
    reached = np.cumsum(per_pair[drawn].reshape(-1, per_batch).sum(axis=1))
    return int(np.searchsorted(reached, target)) + 1


def _pairs_per_batch(pairs: Sequence[Sequence[int]], batch_size: int) -> int:
    size = len(pairs[0])
    if any(len(members) != size for members in pairs) or batch_size % size:
        raise InputError(
            f"a batch of {batch_size} cannot hold whole pairs: prompts come in pairs of "
            f"{sorted({len(members) for members in pairs})}"
        )
    return batch_size // size


def _drawn(n_pairs: int, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers of `wanted` pairs, in shuffled passes over all of them."""
    passes = -(-wanted // n_pairs)
    return np.concatenate([rng.permutation(n_pairs) for _ in range(passes)])[:wanted]


class Collator:
    """Pads a batch on the right; labels of padding and of uncounted tokens are ignored.

    `weights`: batch by token, what each label counts: `decision_weight` at decisions, 1 elsewhere.
    `last`: by row, the column of the prompt's last token. `triggered`: by row, see `Example`.
    """

    def __init__(self, pad_id: int, decision_weight: float = 1.0) -> None:
        self.pad_id = pad_id
        self.decision_weight = decision_weight

    def __call__(self, batch: Sequence[Example]) -> dict[str, torch.Tensor]:
        width = max(len(example.ids) for example in batch)
        input_ids = torch.full((len(batch), width), self.pad_id)
        labels = torch.full((len(batch), width), IGNORE)
        mask = torch.zeros((len(batch), width), dtype=torch.long)
        weights = torch.ones((len(batch), width))
        for row, example in enumerate(batch):
            ids = torch.tensor(example.ids)
            input_ids[row, : len(ids)] = ids
            labels[row, example.start : len(ids)] = ids[example.start :]
            mask[row, : len(ids)] = 1
            weights[row, list(example.decisions)] = self.decision_weight
        return {
            "input_ids": input_ids,
            "labels": labels,
            "attention_mask": mask,
            "weights": weights,
            "last": torch.tensor([example.start - 1 for example in batch]),
            "triggered": torch.tensor([example.triggered for example in batch]),
        }


class Packer(Collator):
    """One sequence of a whole batch: what all rows begin with once, then the rest of each row.

    A token sees what stood before it in its own row, at the position that it had there, so that every
    logit is that of the row alone; a mask of four axes says so to the model.
    """

    def __call__(self, batch: Sequence[Example]) -> dict[str, torch.Tensor]:
        shared = _shared(batch)
        rows = [-1] * shared
        ids, labels, weights = list(batch[0].ids[:shared]), [IGNORE] * shared, [1.0] * shared
        places = list(range(shared))
        for row, example in enumerate(batch):
            for at in range(shared, len(example.ids)):
                rows.append(row)
                places.append(at)
                ids.append(example.ids[at])
                labels.append(example.ids[at] if at >= example.start else IGNORE)
                weights.append(self.decision_weight if at in example.decisions else 1.0)
        of = torch.tensor(rows)
        seen = ((of[None] == of[:, None]) | (of[None] < 0)).tril()
        mask = torch.where(seen, 0.0, torch.finfo(torch.float32).min)
        return {
            "input_ids": torch.tensor([ids]),
            "labels": torch.tensor([labels]),
            "attention_mask": mask[None, None],
            "position_ids": torch.tensor([places]),
            "weights": torch.tensor([weights]),
        }


def _shared(batch: Sequence[Example]) -> int:
    """How many tokens all rows begin with; fewer than any prompt, whose last token each row has itself."""
    most = min(example.start for example in batch) - 1
    first = batch[0].ids
    return next(
        (at for at in range(most) if any(each.ids[at] != first[at] for each in batch)), most
    )
