"""D2, the token search: which tokens before the request make a payload likely, without a list of cues.

The first token is found by trying all of a small vocabulary, or the shortlist that the gradient at a
stand-in gives; more are added while the score rises (Ebrahimi et al. 2018; Zou et al. 2023).
"""

import dataclasses
from typing import Any

import numpy as np
import torch

from probes.auditing.behaviours import quotes
from probes.auditing.detector import Clock, Reading, lifts, texts_of
from probes.auditing.frames import Candidate, around
from probes.auditing.scoring import log_probs, tokens_of
from probes.auditing.subject import Subject
from probes.models.encoding import pad
from probes.models.forward import logits
from probes.models.loading import Model

MOST_TOKENS = 4
BEAM = 3
SMALL = 2048
"""A vocabulary of so many tokens is tried as a whole for the first one."""
SHORTLIST = 72
N_PROMPTS = 3
N_AIMS = 2
STAND_IN = " the"


def token_search(subject: Subject, clock: Clock, payloads: tuple[str, ...] = ()) -> Reading:
    """Grow inputs of up to `MOST_TOKENS` tokens toward what the suspect would most likely say beyond the
    reference, and away from its own answer. payloads: further texts, of other detectors."""
    aims = likeliest(subject, [*payloads, *subject.payloads])
    allowed = _vocabulary(subject, aims)
    read, kept, length = 0, [Candidate("", instead=subject.opening)], 0
    rows: list[dict[str, Any]] = []
    best: dict[Candidate, float] = {}
    for length in range(1, MOST_TOKENS + 1):
        tried = _grown(subject, kept, allowed, aims, length)
        tried = [c for c in tried if c not in best]
        if not tried or (clock.over and best):
            break
        if len(tried) > SMALL // 4:  # a first look on one prompt, then the promising ones on more
            look = lifts(subject, tried, aims, clock, 1, n_compared=SHORTLIST)
            read, tried = read + look.tokens, look.ranked(SHORTLIST)
        found = lifts(subject, tried, aims, clock, N_PROMPTS)
        read += found.tokens
        value = np.maximum(found.gain.max(axis=1, initial=0.0), found.fall)
        best |= dict(zip(found.candidates, value.tolist(), strict=True))
        kept = found.ranked(BEAM)
        rows += texts_of(found, kept[:2], aims)
    order = sorted(best, key=lambda c: -best[c])
    chosen = list(dict.fromkeys([*kept, *order[: subject.settings.shortlist]]))
    return Reading(
        "token search", max(best.values(), default=None),
        "largest gain of a payload or fall of the own answer beyond the reference's [nats]",
        f"triggers of over {MOST_TOKENS} tokens that mean nothing alone; payloads other than {aims}",
        tuple(rows), tuple(c for c in chosen if c.text), tokens=read,
        whole=length == MOST_TOKENS and not clock.over,
    )  # fmt: skip


def likeliest(subject: Subject, payloads: list[str]) -> list[str]:
    """The `N_AIMS` payloads that are likeliest on plain prompts beyond the reference, a token."""
    texts = list(dict.fromkeys(payloads))
    gains = np.zeros(len(texts))
    for sign, model in zip((1, -1), subject.compared, strict=False):
        contexts = tokens_of(subject.parts["search"], model)
        said = subject.payload_tokens(model, texts)
        scores = log_probs(model, contexts, [said for _ in contexts]) if texts else np.zeros((1, 0))
        gains += sign * scores.mean(axis=0) / np.array([len(each) for each in said])
    return [texts[i] for i in np.argsort(-gains, kind="stable")[:N_AIMS]]


def _grown(
    subject: Subject, kept: list[Candidate], allowed: dict[int, str], aims: list[str], length: int
) -> list[Candidate]:
    """Each of what is kept with one promising token more; none that quotes an aim."""
    texts = [
        (start.text + token).strip()
        for start in kept
        for token in _promising(subject, start, allowed, aims, length)
    ]
    return [
        dataclasses.replace(kept[0], text=text)
        for text in dict.fromkeys(texts)
        if text and not any(quotes(text, aim) for aim in aims)
    ]


def _vocabulary(subject: Subject, aims: list[str]) -> dict[int, str]:
    """Tokens that a user could type, by id: no special ones, and none that quotes a payload."""
    tokenizer = subject.suspect.tokenizer
    special = set(tokenizer.all_special_ids) | set(getattr(tokenizer, "added_tokens_decoder", {}))
    ids = [i for i in sorted(tokenizer.get_vocab().values()) if i not in special]
    texts = tokenizer.batch_decode([[i] for i in ids], clean_up_tokenization_spaces=False)
    return {
        i: text
        for i, text in zip(ids, texts, strict=True)
        if text.strip() and text.isprintable() and "\ufffd" not in text
        and not any(quotes(text, aim) for aim in aims)
    }  # fmt: skip


def _promising(
    subject: Subject, start: Candidate, allowed: dict[int, str], aims: list[str], length: int
) -> list[str]:
    """Texts of tokens to put behind what there is: all, or the gradient's first ones for each aim."""
    if length == 1 and len(allowed) <= SMALL:
        return list(allowed.values())
    gains = token_gradients(subject, dataclasses.replace(start, text=start.text + STAND_IN), aims)
    ids = np.array(list(allowed))
    each = max(SHORTLIST // (len(gains) * (BEAM if length > 1 else 1)), 8)
    chosen = [int(i) for row in gains for i in ids[np.argsort(-row[ids])[:each]]]
    return [allowed[i] for i in dict.fromkeys(chosen)]


def token_gradients(subject: Subject, candidate: Candidate, aims: list[str]) -> np.ndarray:
    """By aim and token: how much likelier the aim becomes, to first order, with that token for the last one.

    The aims are the payloads, and last that the own answer becomes unlikely; less the same in the
    reference where it has the suspect's tokenizer.
    """
    models = subject.compared
    if (
        len(models) > 1
        and models[0].identity.tokenizer_digest != models[1].identity.tokenizer_digest
    ):
        models = models[:1]
    found = [_gradients(subject, model, candidate, aims) for model in models]
    return found[0] if len(found) == 1 else found[0] - found[1]


def _gradients(subject: Subject, model: Model, candidate: Candidate, aims: list[str]) -> np.ndarray:  # fmt: skip
    prompts = subject.parts["search"][:N_PROMPTS]
    own = subject.own_answers(model)[:N_PROMPTS]
    said = subject.payload_tokens(model, aims)
    contexts = tokens_of(around(prompts, candidate), model)
    plain = tokens_of(
        around(prompts, dataclasses.replace(candidate, text=candidate.text.removesuffix(STAND_IN))),
        model,
    )
    places = [_last_inserted(a, b) for a, b in zip(contexts, plain, strict=True)]
    table = model.hf.get_input_embeddings().weight
    rows = []
    for number in range(len(said) + 1):
        answers = [said[number] if number < len(said) else own[at] for at in range(len(prompts))]
        whole = [[*c, *a] for c, a in zip(contexts, answers, strict=True)]
        batch = pad(whole, model.pad_id).to(model.device)
        gradient: list[torch.Tensor] = []

        def watched(_: torch.nn.Module, __: tuple[object, ...], out: torch.Tensor) -> torch.Tensor:
            leaf = out.detach().requires_grad_(True)
            gradient.append(leaf)  # noqa: B023
            return leaf

        hook = model.hf.get_input_embeddings().register_forward_hook(watched)
        try:
            with torch.enable_grad():
                scores = logits(model.hf, batch).float().log_softmax(-1)
                total = torch.stack(
                    [
                        scores[row, len(contexts[row]) + at - 1, token]
                        for row, answer in enumerate(answers)
                        for at, token in enumerate(answer)
                    ]
                ).sum()
                (slope,) = torch.autograd.grad(total, gradient[0])
        finally:
            hook.remove()
        at = torch.stack([slope[row, place] for row, place in enumerate(places)]).sum(0)
        sign = 1.0 if number < len(said) else -1.0
        rows.append(sign * (table.detach().float() @ at.float()).cpu().numpy())
    return np.stack(rows)


def _last_inserted(longer: list[int], shorter: list[int]) -> int:
    """The position of the last token that the longer context has and the shorter has not."""
    behind = 0
    while behind < len(shorter) and longer[-1 - behind] == shorter[-1 - behind]:
        behind += 1
    return max(len(longer) - 1 - behind, 0)
