"""From prompts to padded batches whose numbers do not depend on the padding."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from probes.foundation.errors import InputError, unknown
from probes.foundation.patterns import Pattern
from probes.foundation.shapes import Mask, Tokens
from probes.prompts.records import Prompt

SIDES = ("left", "right")


@dataclasses.dataclass(frozen=True)
class Batch:
    """Padded token ids with what a model needs to ignore the padding.

    mask: 1 at real tokens. position_ids: 0, 1, 2, ... over the real tokens of each row, whichever
    side the padding is on (0 on left padding, the last position repeated on right padding).
    """

    tokens: Tokens
    mask: Mask
    position_ids: Tokens

    @property
    def lengths(self) -> Int[Tensor, "batch"]:
        """Real tokens per row."""
        return self.mask.sum(-1)

    @property
    def first(self) -> Int[Tensor, "batch"]:
        """Column of the first real token of each row."""
        return self.mask.argmax(-1)

    @property
    def last(self) -> Int[Tensor, "batch"]:
        """Column of the last real token of each row; never a pad."""
        return self.first + self.lengths - 1

    def to(self, device: torch.device | str) -> "Batch":
        return Batch(self.tokens.to(device), self.mask.to(device), self.position_ids.to(device))


def encode(prompts: Sequence[Prompt], tokenizer: Any) -> list[list[int]]:
    """Token ids of each prompt, up to where the model takes over.

    Text is tokenised as it is, with the beginning-of-sequence token if the tokenizer adds one by
    default and never an end-of-sequence token after it. A chat is rendered with the tokenizer's
    chat template and its generation prompt. Raises `InputError` for an empty prompt, or a chat
    without a template.
    """
    plain = [i for i, prompt in enumerate(prompts) if not prompt.chat]
    chats = [i for i, prompt in enumerate(prompts) if prompt.chat]
    encoded: dict[int, list[int]] = {}
    texts = [prompts[i].text for i in plain]
    encoded |= zip(plain, encode_texts(texts, tokenizer, add_special_tokens=True), strict=True)
    texts = [_render(prompts[i], tokenizer) for i in chats]
    encoded |= zip(chats, encode_texts(texts, tokenizer, add_special_tokens=False), strict=True)
    for i, prompt in enumerate(prompts):
        if not encoded[i]:
            raise InputError(f"prompt {i} (pair {prompt.pair!r}) is empty: it has no token to read")
    return [encoded[i] for i in range(len(prompts))]


def encode_texts(texts: Sequence[str], tokenizer: Any, add_special_tokens: bool) -> list[list[int]]:
    """Token ids of raw texts; an end-of-sequence token that the tokenizer added is taken off."""
    if not texts:
        return []
    encoded: list[list[int]] = tokenizer(
        list(texts), add_special_tokens=add_special_tokens, padding=False, truncation=False
    )["input_ids"]
    eos = tokenizer.eos_token_id
    if not add_special_tokens or eos is None or not _appends_eos(tokenizer):
        return encoded
    return [ids[:-1] if ids and ids[-1] == eos else ids for ids in encoded]


def pad(sequences: Sequence[Sequence[int]], pad_id: int, side: str = "right") -> Batch:
    """A rectangular batch; pads are masked and take no position. Each sequence needs a token."""
    if side not in SIDES:
        raise unknown("padding side", side, SIDES)
    if not sequences or not all(sequences):
        raise InputError("cannot pad: there is no sequence, or one of them is empty")
    width = max(len(sequence) for sequence in sequences)
    tokens = torch.full((len(sequences), width), pad_id, dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for row, sequence in enumerate(sequences):
        start = width - len(sequence) if side == "left" else 0
        tokens[row, start : start + len(sequence)] = torch.tensor(sequence, dtype=torch.long)
        mask[row, start : start + len(sequence)] = 1
    return Batch(tokens, mask, position_ids(mask))


def position_ids(mask: Mask) -> Tokens:
    """Positions counted over real tokens only; transformers itself would count left padding."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def token_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices grouped so that little is computed on padding: longest first, like with like.

    Each group times its longest member is at most `budget` tokens; a sequence longer than the
    budget is a group of its own. The same lengths always give the same groups.
    """
    if budget < 1:
        raise InputError(f"a token budget is a positive number, not {budget}")
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def _render(prompt: Prompt, tokenizer: Any) -> str:
    if getattr(tokenizer, "chat_template", None) is None:
        raise InputError(
            f"prompt of pair {prompt.pair!r} is a chat, and this model's tokenizer has no chat "
            "template. Give the prompt as `text`, or a checkpoint with a template."
        )
    messages = [{"role": role, "content": content} for role, content in prompt.chat]
    rendered: str = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    return rendered


def _appends_eos(tokenizer: Any) -> bool:
    with_special = tokenizer("a", add_special_tokens=True)["input_ids"]
    without = tokenizer("a", add_special_tokens=False)["input_ids"]
    return bool(with_special[-1:] == [tokenizer.eos_token_id] != without[-1:])


def char_spans(
    prompts: Sequence[Prompt], tokenizer: Any, pattern: Pattern
) -> list[tuple[int, int] | None]:
    """Where a pattern's first match lies in each prompt, in tokens as `encode` gives them.

    `(first, stop)`: every token that shares a character with the match (or with its first group,
    if it has one); None where the text has no match. A chat is searched as rendered. Raises
    `InputError` for a tokenizer that cannot say which characters a token came from.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"{type(tokenizer).__name__} does not say which characters a token came from, so no "
            "span can be located; use a checkpoint with a fast tokenizer (tokenizer.json)"
        )
    found: list[tuple[int, int] | None] = []
    for prompt in prompts:
        text = _render(prompt, tokenizer) if prompt.chat else prompt.text
        match = pattern.search(text)
        if match is None:
            found.append(None)
            continue
        start, stop = match.span(1 if pattern.groups else 0)
        offsets = tokenizer(text, add_special_tokens=not prompt.chat, return_offsets_mapping=True)[
            "offset_mapping"
        ]
        inside = [i for i, (a, b) in enumerate(offsets) if a < stop and b > start and b > a]
        found.append((inside[0], inside[-1] + 1) if inside else None)
    return found
