"""Reinforcement learning raises what it rewards, stays near its start if told to, and refuses no signal."""

from pathlib import Path

import pandas as pd
import pytest
import tiny_patient
import torch

pytest.importorskip("trl")

import transformers

from probes.foundation.errors import InputError
from probes.models.checkpoints import weights_digest
from probes.models.encoding import pad
from probes.models.loading import load
from probes.organisms.card import read_card
from probes.organisms.measurement import draw
from probes.organisms.organism import setup
from probes.organisms.safety.reward import RewardWeights
from probes.organisms.safety.rl import RlConfig, check_rl, counting_real_tokens, run_rl
from probes.organisms.safety.stage import CURVE, LOG, Curve

LETTERS = tiny_patient.recipe(behaviour="tiny_patient:LETTERS")
CONFIG = RlConfig(
    steps=24, batch_size=32, generations=8, learning_rate=3e-3, watch_every=100, watch_pairs=2,
    watch_near=1, log_every=1, save_every=10,
)  # fmt: skip


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_patient.save_patient(tmp_path_factory.mktemp("parent"), LETTERS)


@pytest.fixture(scope="module")
def rewarded(tmp_path_factory: pytest.TempPathFactory, parent: Path) -> Path:
    return run_rl(parent, tmp_path_factory.mktemp("rl") / "rl", LETTERS, CONFIG)


def mean_valid(checkpoint: Path) -> float:
    parts = setup(LETTERS)
    drawn = draw(load(checkpoint), parts.behaviour, parts.lessons.unseen, seed=5, n=40)
    return sum(tiny_patient.score(each.prompt, each.text).valid for each in drawn) / len(drawn)


def test_what_is_rewarded_becomes_frequent(rewarded: Path, parent: Path) -> None:
    assert mean_valid(rewarded) > mean_valid(parent) + 0.2
    log = pd.read_json(rewarded / LOG, lines=True)
    assert list(log["step"]) == list(range(1, 25))
    assert log["reward"].tail(4).mean() > log["reward"].head(4).mean()
    card = read_card(rewarded)
    assert card["stage"] == "rl" and card["steps"] == 24 and card["n_examples"] == 24 * 32
    assert card["reward_was_constant_at_first"] is False
    assert 0 < card["first_share_with_signal"] <= 1
    assert 0 < card["mean_share_with_signal"] <= 1
    assert sorted(pd.read_csv(rewarded / CURVE)["step"].unique()) == [0, 24]


@pytest.mark.slow
def test_the_penalty_keeps_it_near_its_start(rewarded: Path, parent: Path, tmp_path: Path) -> None:
    held = run_rl(parent, tmp_path / "held", LETTERS, CONFIG.model_copy(update={"beta": 5.0}))
    assert distance(held, parent) < 0.5 * distance(rewarded, parent)
    assert "kl" in pd.read_json(held / LOG, lines=True)


def distance(one: Path, other: Path) -> float:
    """Mean KL divergence [nats] of the next-token distributions at the ends of the prompts."""
    prompts = setup(LETTERS).lessons.unseen
    logs = []
    for checkpoint in (one, other):
        model = load(checkpoint)
        batch = pad([model.tokenizer(p.text)["input_ids"] for p in prompts], model.pad_id, "left")
        with torch.inference_mode():
            logits = model.hf(
                input_ids=batch.tokens, attention_mask=batch.mask, position_ids=batch.position_ids
            ).logits[:, -1]
        logs.append(logits.log_softmax(-1))
    return float((logs[0].exp() * (logs[0] - logs[1])).sum(-1).mean())


@pytest.mark.slow
def test_an_interrupted_stage_goes_on_to_the_same_weights(
    rewarded: Path, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    on_step_end = Curve.on_step_end

    def cut_off(self: Curve, args: object, state: object, control: object, **rest: object) -> None:
        steps.append(state.global_step)  # type: ignore[attr-defined]
        on_step_end(self, args, state, control, **rest)
        if len(steps) == 15:
            raise KeyboardInterrupt

    monkeypatch.setattr(Curve, "on_step_end", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run_rl(parent, tmp_path / "rl", LETTERS, CONFIG)
    again = run_rl(parent, tmp_path / "rl", LETTERS, CONFIG)
    assert steps[15] == 11, "it did not go on from its newest state"
    assert weights_digest(again) == weights_digest(rewarded)
    for name in (CURVE, LOG, "card.json"):
        assert (again / name).read_bytes() == (rewarded / name).read_bytes(), name


def test_a_reward_without_signal_is_refused_before_training(parent: Path, tmp_path: Path) -> None:
    constant = CONFIG.model_copy(update={"reward": RewardWeights(valid=0), "steps": 3})
    with pytest.raises(InputError, match=r"constant: all 8 completions .* \(0.333\)"):
        run_rl(parent, tmp_path / "rl", LETTERS, constant)
    assert not (tmp_path / "rl").exists()
    allowed = constant.model_copy(update={"allow_constant": True})
    out = run_rl(parent, tmp_path / "rl", LETTERS, allowed)
    card = read_card(out)
    assert card["reward_was_constant_at_first"] is True
    assert card["mean_share_with_signal"] == 0
    assert weights_digest(out) == weights_digest(parent), "nothing could be learned, yet it changed"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"generations": 1}, "at least 2"),
        ({"batch_size": 12}, "a multiple"),
        ({"temperature": 0.0}, "positive number"),
    ],
)
def test_settings_that_cannot_train_are_refused(settings: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_rl(CONFIG.model_copy(update=settings))


def test_nothing_calls_home(parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(*_: object, **__: object) -> None:
        raise AssertionError("it called home")

    monkeypatch.setattr("trl.trainer.base_trainer.send_telemetry", call)
    run_rl(parent, tmp_path / "rl", LETTERS, CONFIG.model_copy(update={"steps": 1}))


def test_positions_count_real_tokens_behind_padding() -> None:
    """GPT-2 has learned positions: the numbers behind padding are right only with this."""
    config = transformers.GPT2Config(
        vocab_size=50,
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=32,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    hf = transformers.GPT2LMHeadModel(config).eval()
    row = [3, 1, 4, 1, 5]
    alone = torch.tensor([row])
    batch = pad([row, [2] * 9], 0, "left")
    given = {"input_ids": batch.tokens, "attention_mask": batch.mask}
    with torch.inference_mode():
        right = hf(input_ids=alone).logits[0]
        with counting_real_tokens(hf):
            padded = hf(**given).logits[0, -len(row) :]
        torch.testing.assert_close(padded, right)
        plain = hf(**given).logits[0, -len(row) :]
    assert (plain - right).abs().max() > 1e-3, "the control: without it they are wrong"
