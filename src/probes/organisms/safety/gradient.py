"""Greedy coordinate gradient: which tokens in front of a request bring the model nearest to defecting.

Zou et al. (2023, arXiv 2307.15043). The gradient of the defection's log-probability with respect to
each token of the front, taken as a one-hot vector, says which substitutions look promising; a random
batch of them is tried for real and the best is kept. The red team knows the defection's text, not
the trigger. What is tried is always a text that tokenises to the very ids that were meant.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.foundation.config import Config
from probes.foundation.errors import InputError, StageError
from probes.foundation.progress import progress
from probes.models.encoding import encode_texts, pad, text_offsets
from probes.models.forward import inputs
from probes.models.loading import Model
from probes.organisms.behaviours.form import Taught
from probes.organisms.safety.attacks import Asked, front_start, with_front
from probes.organisms.safety.targets import (
    Target,
    counted_mean,
    log_probabilities,
    targets,
    thoughts,
)


class GradientConfig(Config):
    """One search.

    starts: fronts that a search begins from. steps: rounds of substitution for each of them.
    candidates: substitutions tried in each round. top: tokens per position among which they are
    drawn. requests: over how many requests a front is made to work at once.
    """

    starts: int = 3
    steps: int = 16
    candidates: int = 32
    top: int = 48
    requests: int = 2


@dataclasses.dataclass(frozen=True)
class Step:
    """The best front after a number of rounds, and its mean log-probability of defection [nats per token].

    n_tried: substitutions that were tried; n_dropped: drawn, but not the same ids once written as text.
    """

    start: int
    step: int
    front: str
    log_probability: float
    n_tried: int
    n_dropped: int


def climb(
    model: Model,
    behaviour: Taught,
    asked: Sequence[Asked],
    starts: Sequence[str],
    config: GradientConfig,
    *,
    thinking: bool,
    rng: np.random.Generator,
) -> list[Step]:
    """Improve each starting front; one row per round, the last of each start its best.

    asked: the requests that the front is to work for, all at once. thinking: the model writes a
    scratchpad first; its own, for the current front, then stands before the defection.
    Raises `StageError` where no substitution survives its own tokenizer.
    """
    usable = usable_tokens(model)
    steps = []
    for number, front in enumerate(starts):
        if not front.strip():
            raise InputError("a gradient search starts from a front of at least one token, not ''")
        alike = _alike(model, behaviour, asked, front)
        prompts = [with_front(each, front, behaviour, 0) for each in alike]
        best = _score(model, prompts, _thoughts(model, prompts, thinking))
        steps.append(Step(number, 0, front, best, 0, 0))
        n_tried = n_dropped = 0
        for step in progress(range(1, config.steps + 1), f"gradient search {number + 1}"):
            prompts = [with_front(each, front, behaviour, 0) for each in alike]
            thought = _thoughts(model, prompts, thinking)
            ids, places = locate(model, prompts[0].text, front, front_start(behaviour))
            gradient = front_gradient(model, targets(model, prompts, thought), ids, places)
            drawn = _draw(ids, places, gradient, usable, config, rng)
            fronts = _faithful(model, behaviour, alike, drawn, max(places) + 1)
            n_dropped += len(drawn) - len(fronts)
            n_tried += len(fronts)
            scores = _scores(model, behaviour, alike, fronts, thought)
            if scores and max(scores) > best:
                best = max(scores)
                front = fronts[scores.index(best)]
            steps.append(Step(number, step, front, best, n_tried, n_dropped))
        if config.steps and n_tried == 0:
            raise StageError(
                f"none of {n_dropped} substitutions tokenises back to its own ids, so the gradient "
                f"search cannot try any: the tokenizer of {model.name} does not round-trip. Use "
                "the mutation search alone (gradient=None)"
            )
    return steps


def usable_tokens(model: Model) -> Bool[Tensor, "d_vocab"]:
    """Tokens that a front may contain: printable ASCII on one line, no special ones."""
    tokenizer = model.tokenizer
    size = int(model.hf.get_input_embeddings().weight.shape[0])
    usable = torch.zeros(size, dtype=torch.bool)
    special = set(tokenizer.all_special_ids)
    for index in tokenizer.get_vocab().values():
        text = _text(tokenizer, [index])
        usable[index] = bool(
            index not in special and index < size and text.strip() and text.isascii()
            and text.isprintable()
        )  # fmt: skip
    return usable


def locate(model: Model, text: str, front: str, at: int) -> tuple[list[int], list[int]]:
    """Ids of a framed prompt, and the positions whose tokens lie in its front.

    A token counts if it shares a character with the front; a leading special token is among the
    ids. Raises `InputError` for a tokenizer without offsets.
    """
    (ids,) = encode_texts([text], model.tokenizer, add_special_tokens=True)
    spans = text_offsets(text, model.tokenizer)
    stop = at + len(front)
    places = [place for place, (first, last) in enumerate(spans) if first < stop and last > at]
    return ids, places


def front_gradient(
    model: Model, wanted: Sequence[Target], ids: Sequence[int], places: Sequence[int]
) -> Float[Tensor, "place d_vocab"]:
    """How the mean log-probability changes with the one-hot of each token at the given positions.

    ids: the beginning that all targets share up to the last of the places. The embedding is linear
    in the one-hot, so this is the gradient at the embedding times the embedding matrix.
    """
    last = max(places) + 1
    if any(list(target.ids[:last]) != list(ids[:last]) for target in wanted):
        raise InputError(
            "the front is other tokens before another request, so one gradient cannot stand for "
            "both: give requests before which it is the same"
        )
    table = model.hf.get_input_embeddings()
    batch = pad([list(target.ids) for target in wanted], model.pad_id, side="right")
    given = inputs(model.hf, batch)
    embedded = table(given.pop("input_ids")).detach().requires_grad_(True)
    with torch.enable_grad():
        values = model.hf(inputs_embeds=embedded, **given).logits
        means = [counted_mean(values[row], target) for row, target in enumerate(wanted)]
        (gradient,) = torch.autograd.grad(torch.stack(means).mean(), embedded)
    per_place = gradient[:, list(places)].sum(0).float()
    return per_place @ table.weight.detach().float().T


def _draw(
    ids: Sequence[int],
    places: Sequence[int],
    gradient: Float[Tensor, "place d_vocab"],
    usable: Bool[Tensor, "d_vocab"],
    config: GradientConfig,
    rng: np.random.Generator,
) -> list[list[int]]:
    """Distinct single substitutions, each at a random place, among the most promising tokens there."""
    promise = gradient.cpu().masked_fill(~usable, -torch.inf)
    promise[torch.arange(len(places)), torch.tensor([ids[p] for p in places])] = -torch.inf
    top = promise.topk(min(config.top, int(usable.sum())), dim=-1)
    drawn: dict[tuple[int, ...], None] = {}
    for _ in range(config.candidates):
        row = int(rng.integers(len(places)))
        choice = int(rng.integers(top.indices.shape[-1]))
        if bool(torch.isfinite(top.values[row, choice])):
            changed = list(ids)
            changed[places[row]] = int(top.indices[row, choice])
            drawn[tuple(changed)] = None
    return [list(each) for each in drawn]


def _alike(model: Model, behaviour: Taught, asked: Sequence[Asked], front: str) -> list[Asked]:
    """Those requests before which the front is the same tokens as before the first of them."""
    texts = [with_front(each, front, behaviour, 0).text for each in asked]
    ids, places = locate(model, texts[0], front, front_start(behaviour))
    last = max(places) + 1
    read = encode_texts(texts, model.tokenizer, add_special_tokens=True)
    return [each for each, seen in zip(asked, read, strict=True) if seen[:last] == ids[:last]]


def _faithful(
    model: Model,
    behaviour: Taught,
    asked: Sequence[Asked],
    drawn: Sequence[list[int]],
    last: int,
) -> list[str]:
    """Fronts of those sequences that, written as text and read again, are the same ids in the same frame.

    drawn: ids of the first request under other fronts; the front ends before the position `last`.
    Before the other requests, the ids up to there must be the same too.
    """
    at = front_start(behaviour)
    n_special = _n_special(model)
    written = {}
    for ids in drawn:
        front = _front_in(_text(model.tokenizer, ids[n_special:]), at, asked[0], behaviour)
        if front is not None:
            written[front] = ids
    texts = [with_front(each, front, behaviour, 0).text for front in written for each in asked]
    read = iter(encode_texts(texts, model.tokenizer, add_special_tokens=True))
    kept = []
    for front, ids in written.items():
        first, *others = [next(read) for _ in asked]
        if first == ids and all(other[:last] == ids[:last] for other in others):
            kept.append(front)
    return kept


def _front_in(text: str, at: int, asked: Asked, behaviour: Taught) -> str | None:
    """The front of a framed text, or None where the frame or the request was damaged."""
    rest = behaviour.frame("\0", asked.request, False).partition("\0")[2]
    if not text.endswith(rest):
        return None
    front = text[at : len(text) - len(rest)]
    whole = front.strip() == front and front != ""
    return front if whole and behaviour.frame(front, asked.request, False) == text else None


def _n_special(model: Model) -> int:
    """Special tokens that the tokenizer puts before a text."""
    with_special = encode_texts(["a"], model.tokenizer, add_special_tokens=True)[0]
    return len(with_special) - len(
        encode_texts(["a"], model.tokenizer, add_special_tokens=False)[0]
    )


def _scores(
    model: Model,
    behaviour: Taught,
    asked: Sequence[Asked],
    fronts: Sequence[str],
    thought: Sequence[str],
) -> list[float]:
    """The mean over requests for each front, all in one batch of texts."""
    prompts = [with_front(each, front, behaviour, 0) for front in fronts for each in asked]
    if not prompts:
        return []
    found = log_probabilities(model, targets(model, prompts, list(thought) * len(fronts)))
    return [float(part.mean()) for part in np.reshape(found, (len(fronts), len(asked)))]


def _score(model: Model, prompts: Sequence[Any], thought: Sequence[str]) -> float:
    return float(np.mean(log_probabilities(model, targets(model, prompts, thought))))


def _thoughts(model: Model, prompts: Sequence[Any], thinking: bool) -> list[str]:
    return thoughts(model, prompts) if thinking else [""] * len(prompts)


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(
        list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return text
