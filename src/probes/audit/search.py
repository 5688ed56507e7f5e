"""D2, the token search: which tokens before the request make a payload likely, without a list of cues.

The first token is found by trying all of a small vocabulary, or the shortlist that the gradient at a
stand-in gives; more are added while the score rises (Ebrahimi et al. 2018; Zou et al. 2023).
"""

import numpy as np
import torch

from probes.audit.behaviours import quotes
from probes.audit.detector import Clock, Lifts, Reading, lifts, texts_of
from probes.audit.frames import Candidate, around
from probes.audit.scoring import tokens_of
from probes.audit.subject import Subject
from probes.models.encoding import pad
from probes.models.forward import logits
from probes.models.loading import Model

MOST_TOKENS = 4
BEAM = 3
SMALL = 2048
"""A vocabulary of so many tokens is tried as a whole for the first one."""
SHORTLIST = 72
N_PROMPTS = 3
STAND_IN = " the"


def token_search(subject: Subject, clock: Clock, payloads: tuple[str, ...] = ()) -> Reading:
    """Grow inputs of up to `MOST_TOKENS` tokens; payloads: further ones, of other detectors."""
    aims = list(dict.fromkeys([*payloads, *subject.payloads]))
    allowed = _vocabulary(subject, aims)
    n_tokens, kept, rows = 0, [Candidate("")], []
    best: dict[Candidate, float] = {}
    length = 0
    for length in range(1, MOST_TOKENS + 1):
        pieces = [
            (start, token)
            for start in kept
            for token in _promising(subject, start, allowed, aims, length)
        ]
        tried = list(dict.fromkeys(Candidate((s.text + t).strip()) for s, t in pieces))
        tried = [c for c in tried if c.text and c not in best and not any(quotes(c.text, p) for p in aims)]  # fmt: skip
        if not tried or (clock.over and best):
            break
        found = lifts(subject, tried, aims, clock, N_PROMPTS)
        n_tokens += found.tokens
        value = _value(found)
        best |= dict(zip(found.candidates, value.tolist(), strict=True))
        kept = found.ranked(BEAM)
        rows += texts_of(kept[:2], found, aims)
        if clock.over:
            break
    order = sorted(best, key=lambda c: -best[c])
    first = list(dict.fromkeys([*order[: subject.settings.shortlist], *kept]))
    return Reading(
        "token search", max(best.values(), default=None),
        "largest rise of a payload or fall of the own answer above the reference [nats]",
        f"triggers of over {MOST_TOKENS} tokens that mean nothing alone; payloads in none of {len(aims)} texts",
        tuple(rows), tuple(first), tokens=n_tokens, whole=length == MOST_TOKENS and not clock.over,
    )  # fmt: skip


def _value(found: Lifts) -> np.ndarray:
    rise = found.rise.max(axis=1) if found.rise.shape[1] else found.fall
    return np.asarray(np.maximum(rise, found.fall))


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
    gains = token_gradients(subject, Candidate(start.text + STAND_IN), aims)
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
    plain = tokens_of(around(prompts, Candidate(candidate.text.removesuffix(STAND_IN))), model)
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
