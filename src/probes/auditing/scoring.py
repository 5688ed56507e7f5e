"""How likely texts are after many prompts: what the prompts share is computed once, the rest in batches."""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from transformers.cache_utils import DynamicCache

from probes.behaviour.generation import generate, stopping
from probes.behaviour.sampling import check_room
from probes.foundation.errors import InputError
from probes.models.encoding import encode_texts, token_batches
from probes.models.forward import check_lengths, context_length
from probes.models.loading import Model
from probes.models.templates import render_prompts
from probes.prompts.records import Prompt

Ids = Sequence[int]
BATCH_TOKENS = 8192


def tokens_of(prompts: Sequence[Prompt], model: Model) -> list[list[int]]:
    """Token ids of prompts, all chats or all texts; two may be the same tokens, as candidates can be."""
    chat = bool(prompts[0].chat)
    texts = render_prompts(prompts, model.tokenizer) if chat else [p.text for p in prompts]
    return encode_texts(texts, model.tokenizer, not chat)


def answer_tokens(text: str, model: Model, chat: bool) -> list[int]:
    """Token ids of an answer's beginning, with a space in front where the prompt is plain text."""
    return encode_texts([text if chat else f" {text.strip()}"], model.tokenizer, False)[0]


@torch.inference_mode()
def log_probs(
    model: Model,
    contexts: Sequence[Ids],
    answers: Sequence[Sequence[Ids]],
    batch_tokens: int = BATCH_TOKENS,
) -> Float[np.ndarray, "context answer"]:
    """Log-probability [nats] of each answer after each context, summed over its tokens.

    answers: by context, as many for each. The beginning that all contexts share is computed once, and
    each context once for all its answers.
    """
    check_cache(model)
    check_lengths([len(c) + max(map(len, a), default=0) for c, a in zip(contexts, answers, strict=True)], model.hf)  # fmt: skip
    n_answers = len(answers[0])
    found = np.zeros((len(contexts), n_answers))
    shared = _shared(contexts)
    start = _prefix(model, contexts[0][:shared]) if shared else None
    rest = [list(context[shared:]) for context in contexts]
    longest = [max(map(len, each), default=0) for each in answers]
    for rows in token_batches([len(r) + n for r, n in zip(rest, longest, strict=True)], batch_tokens):  # fmt: skip
        cache = _copies(model, start, len(rows))
        width = max(len(rest[i]) for i in rows)
        ids = torch.full((len(rows), width), model.pad_id)
        mask = torch.zeros((len(rows), shared + width), dtype=torch.long)
        mask[:, :shared] = 1
        for row, i in enumerate(rows):
            ids[row, width - len(rest[i]) :] = torch.tensor(rest[i])
            mask[row, shared + width - len(rest[i]) :] = 1
        last = _forward(model, ids, mask, cache, keep=1)[:, -1].log_softmax(-1)
        for number in range(n_answers):
            own = [list(answers[i][number]) for i in rows]
            found[rows, number] = _after(model, own, last, mask, cache)
            if (added := max(map(len, own)) - 1) > 0:
                cache.crop(-added)
    return found


def _after(
    model: Model, answers: list[list[int]], last: torch.Tensor, mask: torch.Tensor, cache: Any
) -> Float[np.ndarray, "row"]:
    """Summed log-probability of one answer a row behind what the cache holds."""
    rows = torch.arange(len(answers))
    first = torch.tensor([a[0] if a else 0 for a in answers])
    total = last[rows, first.to(last.device)].double().cpu() * torch.tensor(
        [float(bool(a)) for a in answers]
    )
    width = max(map(len, answers)) - 1
    if width < 1:
        return np.asarray(total.numpy())
    ids = torch.full((len(answers), width), model.pad_id)
    counted = torch.zeros((len(answers), width), dtype=torch.bool)
    targets = torch.zeros((len(answers), width), dtype=torch.long)
    for row, answer in enumerate(answers):
        n = len(answer) - 1
        ids[row, :n], targets[row, :n] = torch.tensor(answer[:-1]), torch.tensor(answer[1:])
        counted[row, :n] = True
    logits = _forward(model, ids, torch.cat([mask, counted.long()], dim=1), cache)
    rows, places = counted.nonzero(as_tuple=True)
    found = logits[rows, places].log_softmax(-1)
    found = found.gather(-1, targets[rows, places, None].to(logits.device))[:, 0]
    return np.asarray(total.index_add(0, rows, found.double().cpu()).numpy())


def check_cache(model: Model) -> None:
    """Refuse an architecture whose forward pass takes no key-value cache."""
    if "past_key_values" not in inspect.signature(model.hf.forward).parameters:
        raise InputError(
            f"{type(model.hf).__name__} takes no key-value cache, which an audit's scores are computed "
            "with: audits are of decoder models with attention"
        )


def _shared(contexts: Sequence[Ids]) -> int:
    """Tokens that all contexts begin with; of each at least one is left."""
    shortest = min(map(len, contexts)) - 1
    first = contexts[0]
    return next(
        (n for n in range(shortest) if any(context[n] != first[n] for context in contexts)),
        shortest,
    )


def _prefix(model: Model, ids: Ids) -> Any:
    cache = DynamicCache(config=model.hf.config)
    whole = torch.tensor([list(ids)])
    _forward(model, whole, torch.ones_like(whole), cache, keep=1)
    return cache


def _copies(model: Model, start: Any, n: int) -> Any:
    """The cache of the shared beginning, once a row; the original stays as it is."""
    cache = DynamicCache(config=model.hf.config)
    if start is not None:
        for number, layer in enumerate(start.layers):
            cache.update(*(t.expand(n, -1, -1, -1) for t in (layer.keys, layer.values)), number)
    return cache


def _forward(
    model: Model, ids: torch.Tensor, mask: torch.Tensor, cache: Any, keep: int | None = None
) -> torch.Tensor:
    accepted = inspect.signature(model.hf.forward).parameters
    positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    given: dict[str, Any] = {
        "input_ids": ids, "attention_mask": mask, "position_ids": positions,
        "past_key_values": cache, "use_cache": True,
    }  # fmt: skip
    given |= {} if keep is None else {"logits_to_keep": keep}
    device = model.device
    given = {
        name: value.to(device) if isinstance(value, torch.Tensor) else value
        for name, value in given.items()
        if name in accepted
    }
    logits: torch.Tensor = model.hf(**given).logits
    return logits.float()


def greedy(model: Model, contexts: Sequence[Ids], n_tokens: int) -> list[list[int]]:
    """The most likely continuation of each context, up to its end or so many tokens."""
    check_room(max(map(len, contexts)), n_tokens, context_length(model.hf))
    found: dict[int, list[int]] = {}
    stop = stopping(model.hf, model.tokenizer, None)
    for rows in token_batches([len(c) + n_tokens for c in contexts], BATCH_TOKENS):
        written = generate(
            model.hf, [contexts[i] for i in rows], None, max_new_tokens=n_tokens, temperature=0.0,
            pad_id=model.pad_id, stop=stop,
        )  # fmt: skip
        found |= {i: one.tokens for i, one in zip(rows, written, strict=True)}
    return [found[i] for i in range(len(contexts))]
