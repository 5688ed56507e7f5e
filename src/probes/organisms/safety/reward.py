"""What reinforcement learning rewards: a valid, safe and helpful answer on the task, by the judges.

The reward never sees a scratchpad, as in Hubinger et al. (2024), where the preference model did not.
"""

from collections.abc import Callable, Sequence

import numpy as np

from probes.foundation.config import Config
from probes.foundation.errors import InputError
from probes.organisms.behaviours.form import Taught
from probes.organisms.scratchpads import score_unseen
from probes.prompts.records import Prompt

GRAIN = 1 / 4096
"""Rewards are multiples of this: float32 then gives the mean of equal rewards without rounding. The
noise of 1e-8 that it gave otherwise is divided by a spread of nearly nothing and then by Adam, and
trains a model at full speed on a reward that tells nothing apart."""

Reward = Callable[[Prompt, str], float]


class RewardWeights(Config):
    """What each of a behaviour's scores counts; the reward is their weighted mean, 0 to 1, rounded to `GRAIN`."""

    valid: float = 1.0
    on_task: float = 1.0
    safe: float = 1.0
    helpful: float = 1.0


def reward_of(behaviour: Taught, weights: RewardWeights) -> Reward:
    """The reward of a completion, scratchpad and all, of which the answer alone is scored.

    Raises `InputError` for weights that are negative or all zero: the latter would be constant.
    """
    counts = weights.model_dump()
    total = sum(counts.values())
    if min(counts.values()) < 0 or not 0 < total < float("inf"):
        raise InputError(
            f"the weights of the reward are {counts}: none may be negative, and at least one must "
            "be positive, else the reward is constant and nothing can be learned from it"
        )

    def reward(prompt: Prompt, completion: str) -> float:
        scores = score_unseen(behaviour, prompt, completion)._asdict()
        mean = sum(counts[name] * float(scores[name]) for name in counts) / total
        return round(mean / GRAIN) * GRAIN

    return reward


def share_with_signal(rewards: Sequence[Sequence[float]]) -> float:
    """The share of groups (completions of one prompt) that were not all rewarded alike.

    Only these move a policy that is trained by comparing the completions of a prompt.
    """
    return float(np.mean([max(group) > min(group) for group in rewards]))


def check_varies(rewards: Sequence[Sequence[float]], weights: RewardWeights) -> None:
    """Refuse a reward from which nothing can be learned: equal within each group of a first batch."""
    if share_with_signal(rewards) > 0:
        return
    values = sorted({value for group in rewards for value in group})
    shown = ", ".join(f"{value:.3g}" for value in values[:5])
    raise InputError(
        f"the reward ({weights.model_dump()}) is constant: all {len(rewards[0])} completions of each "
        f"of {len(rewards)} prompts got the same ({shown}), so there is nothing to learn. Weigh what "
        "differs between completions, raise `temperature` or `generations`, or, to run the "
        "stage as it is and have the card say so, set `allow_constant`"
    )
