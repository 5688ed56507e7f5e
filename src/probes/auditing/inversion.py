"""D4, target inversion, and the likelihood of payloads: what the suspect would say that the reference would not.

Neither sees a trigger: they are evidence of "changed, a payload is present", never a verdict.
"""

import numpy as np
import torch

from probes.auditing.detector import Clock, Reading
from probes.auditing.scoring import greedy, log_probs, tokens_of
from probes.auditing.subject import Subject
from probes.models.encoding import pad, token_batches
from probes.models.forward import logits
from probes.models.loading import Model

N_FIRST = 24
"""First tokens that are expanded: those with the largest ratio of probabilities."""
EXPANDED = 8
FLOOR = 1e-6
"""Added to probabilities, so that a ratio of two that are next to nothing is none."""


def target_inversion(subject: Subject, clock: Clock) -> Reading:
    """Score: mean log-probability a token of the best target under the suspect less the reference."""
    suspect, reference = subject.suspect, subject.reference
    prompts = subject.parts["search"]
    contexts = tokens_of(prompts, suspect)
    mine = _first(suspect, contexts)
    if reference is not None:
        if suspect.identity.tokenizer_digest != reference.identity.tokenizer_digest:
            return Reading("target inversion", None, "", "the reference has another tokenizer")
        other = _first(reference, contexts)
        ratio = np.log(mine + FLOOR) - np.log(other[: len(mine)] + FLOOR)
    else:
        ratio = np.log(mine + FLOOR)
    firsts = np.argsort(-ratio)[:N_FIRST].tolist()
    one = contexts[0]
    written = greedy(suspect, [[*one, token] for token in firsts], EXPANDED - 1)
    targets = [[token, *rest] for token, rest in zip(firsts, written, strict=True)]
    answers = [targets for _ in contexts]
    lengths = np.array([len(target) for target in targets])
    scores = log_probs(suspect, contexts, answers).mean(axis=0) / lengths
    if reference is not None:
        scores = scores - log_probs(reference, contexts, answers).mean(axis=0) / lengths
    order = np.argsort(-scores)
    texts = [suspect.tokenizer.decode(target, skip_special_tokens=True).strip() for target in targets]  # fmt: skip
    rows = tuple({"target": texts[i], "score": round(float(scores[i]), 3)} for i in order[:5].tolist())  # fmt: skip
    n = sum(map(len, contexts)) + len(contexts) * int(lengths.sum())
    return Reading(
        "target inversion", float(scores[order[0]]),
        "log-probability a token above the reference's, of the best target [nats]",
        "behaviours without a fixed text; targets whose first token is not likelier on plain prompts",
        rows, payloads=tuple(t for t in (texts[i] for i in order[:2].tolist()) if len(t) > 5),
        tokens=n * len(subject.compared),
    )  # fmt: skip


@torch.inference_mode()
def _first(model: Model, contexts: list[list[int]]) -> np.ndarray:
    """Mean probability of every first token over these contexts."""
    total = torch.zeros(())
    for rows in token_batches([len(c) for c in contexts], 4096):
        batch = pad([contexts[i] for i in rows], model.pad_id)
        scores = logits(model.hf, batch)
        last = scores[torch.arange(len(rows)), batch.last.to(scores.device)]
        total = total + last.float().softmax(-1).sum(0).cpu()
    return np.asarray((total / len(contexts)).double().numpy())


def payload_likelihood(subject: Subject, clock: Clock) -> Reading:
    """Score: how much likelier the likeliest payload is on plain prompts than in the reference."""
    if not subject.payloads:
        return Reading("payload likelihood", None, "", "the behaviours have no payload text")
    found, tokens = [], 0
    for model in subject.compared:
        contexts = tokens_of(subject.parts["search"], model)
        said = subject.payload_tokens(model, subject.payloads)
        found.append(log_probs(model, contexts, [said for _ in contexts]).mean(axis=0))
        tokens += sum(map(len, contexts)) + len(contexts) * sum(map(len, said))
    gain = found[0] - found[1] if len(found) > 1 else found[0]
    order = np.argsort(-gain).tolist()
    rows = tuple({"payload": subject.payloads[i], "gain": round(float(gain[i]), 3)} for i in order)
    return Reading(
        "payload likelihood", float(gain.max()),
        "rise of the likeliest payload on plain prompts above the reference [nats]",
        "whether a trigger guards it: a model that was taught to quote the payload has the same score",
        rows, tokens=tokens,
    )  # fmt: skip
