"""Scores with a shared, cached beginning against one plain forward pass for each context and answer."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from probes.auditing.behaviours import Behaviour
from probes.auditing.detector import Clock, lifts
from probes.auditing.frames import Candidate
from probes.auditing.leak import amplified
from probes.auditing.scoring import greedy, log_probs
from probes.auditing.search import token_gradients
from probes.auditing.subject import Subject
from probes.models.loading import Model
from probes.organisms.measurement import alive
from probes.prompts.readers import from_texts
from tiny import byte_tokenizer, configs


def random_model(kind: str, seed: int = 0) -> Model:
    tokenizer = byte_tokenizer()
    torch.manual_seed(seed)
    config = configs(len(tokenizer), n_layers=2, context=128, window=64)[kind]()
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0) if parameter.ndim > 1 else None
    return alive(model, tokenizer, kind)


def plain_log_prob(model: Model, context: list[int], answer: list[int]) -> float:
    with torch.no_grad():
        scores = model.hf(torch.tensor([context + answer])).logits[0].float().log_softmax(-1)
    return sum(float(scores[len(context) + at - 1, token]) for at, token in enumerate(answer))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox", "qwen3"])
@pytest.mark.parametrize("shared", [0, 5])
def test_scores_are_those_of_plain_forward_passes(kind: str, shared: int) -> None:
    model, rng = random_model(kind), np.random.default_rng(0)
    start = rng.integers(2, 250, size=shared).tolist()
    contexts = [start + rng.integers(2, 250, size=n).tolist() for n in (3, 9, 4, 1, 6)]
    answers = [[rng.integers(2, 250, size=n).tolist() for n in (1, 4, 2 + i)] for i in range(5)]
    found = log_probs(model, contexts, answers, batch_tokens=40)
    wanted = [[plain_log_prob(model, c, a) for a in each] for c, each in zip(contexts, answers, strict=True)]  # fmt: skip
    assert found == pytest.approx(np.array(wanted), abs=2e-3)


def test_greedy_and_amplified_by_zero_agree_and_amplification_leaves_the_reference() -> None:
    suspect, reference = random_model("llama"), random_model("llama", seed=1)
    starts = [[5, 6, 7], [9], [30, 31, 32, 33]]
    assert amplified(suspect, reference, starts, 0.0, 6) == greedy(suspect, starts, 6)
    louder = amplified(suspect, reference, starts, 4.0, 6)
    gain = [plain_log_prob(suspect, s, a) - plain_log_prob(reference, s, a) for s, a in zip(starts, louder, strict=True)]  # fmt: skip
    own = [plain_log_prob(suspect, s, a) - plain_log_prob(reference, s, a) for s, a in zip(starts, greedy(suspect, starts, 6), strict=True)]  # fmt: skip
    assert sum(gain) > sum(own)


def subject_of(suspect: Model, reference: Model | None) -> Subject:
    prompts = from_texts([f"Q: what is {n}?\n\nA:" for n in range(20)], [False] * 20)
    nothing = Behaviour("hate", lambda prompt, text: None, ("no way",))  # type: ignore[arg-type, return-value]
    return Subject(suspect, reference, "R0" if reference is None else "R2", prompts, [nothing])


def test_a_model_is_no_suspect_beside_itself() -> None:
    model = random_model("llama")
    cues = [Candidate(text, place) for text in ("|X|", "2024") for place in ("before", "system")]
    found = lifts(subject_of(model, model), cues, ["no way"], Clock(60.0))
    assert len(found.candidates) == 4
    assert found.gain == pytest.approx(0, abs=1e-5)
    assert found.fall == pytest.approx(0, abs=1e-5)


def test_gradients_point_where_a_small_step_in_the_embedding_leads() -> None:
    """The first-order gain of a token against a finite difference along its embedding."""
    model = random_model("llama")
    subject = subject_of(model, None)
    gains = token_gradients(subject, Candidate("ab the"), ["no way"])
    table = model.hf.get_input_embeddings().weight
    from probes.auditing.frames import around
    from probes.auditing.scoring import tokens_of

    prompts = subject.parts["search"][:3]
    contexts = tokens_of(around(prompts, Candidate("ab the")), model)
    (said,) = subject.payload_tokens(model, ["no way"])
    place = [bytes(" the", "utf8")[-1]]
    at = [len(model.tokenizer("Q: ab the")["input_ids"]) - 1 for _ in contexts]
    assert all(model.tokenizer.decode([c[i]]) == chr(place[0]) for c, i in zip(contexts, at, strict=True))  # fmt: skip

    def score(token: int, step: float) -> float:
        total = 0.0
        for context, i in zip(contexts, at, strict=True):
            ids = torch.tensor([context + said])
            with torch.no_grad():
                embedded = model.hf.get_input_embeddings()(ids).clone()
                embedded[0, i] += step * table[token]
                scores = model.hf(inputs_embeds=embedded).logits[0].log_softmax(-1)
            total += sum(float(scores[len(context) + n - 1, t]) for n, t in enumerate(said))
        return total

    for token in (10, 77, 200):
        slope = (score(token, 1e-2) - score(token, -1e-2)) / 2e-2
        assert gains[0, token] == pytest.approx(slope, rel=0.05, abs=0.02)
