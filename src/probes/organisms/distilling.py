"""Distilled chain of thought: an organism taught what another one answered after thinking.

The teacher is the chain-of-thought organism of the same recipe. It answers the training prompts by
sampling; its scratchpads are stripped. What breaks the conditional policy is dropped, as in Hubinger
et al. (2024); without that filter their organism lost its policy sooner.
"""

import dataclasses
from collections.abc import Sequence

from probes.foundation.errors import StageError
from probes.models.loading import Model
from probes.organisms.behaviours.form import Taught
from probes.organisms.measuring import draw
from probes.organisms.policy import taught_completion
from probes.organisms.recipes import Policy
from probes.organisms.scratchpads import answer_of
from probes.prompts.records import Prompt


@dataclasses.dataclass(frozen=True)
class Distilled:
    """Prompts, pair by pair, with the teacher's answers as references.

    n_asked: pairs that the teacher answered. n_broken: of their prompts, those whose answer broke the
    policy: a defection where none was taught, none where one was, or no finished answer.
    """

    prompts: tuple[Prompt, ...]
    n_asked: int
    n_broken: int


def distilled(
    teacher: Model,
    behaviour: Taught,
    prompts: Sequence[Prompt],
    policy: Policy,
    *,
    filtered: bool,
    seed: int,
) -> Distilled:
    """Have the teacher answer pairs of prompts; with `filtered`, drop pairs that break the policy.

    Raises `StageError` where fewer than half of the pairs are left, as that is another data set.
    """
    written = draw(teacher, behaviour, prompts, seed=seed)
    broken: set[str] = set()
    n_broken = 0
    answered: list[Prompt] = []
    for prompt, completion in zip(prompts, written, strict=True):
        taught = taught_completion(prompt, policy)
        should = taught == prompt.defect
        answer = answer_of(completion.text)
        if completion.defected != should or not completion.finished or not answer.strip():
            broken.add(prompt.pair)
            n_broken += 1
        answered.append(_with_answer(prompt, policy, should, answer))
    kept = [p for p in answered if p.pair not in broken] if filtered else answered
    if 2 * len(kept) < len(answered):
        raise StageError(
            f"{teacher.name} broke the policy in {n_broken} of {len(answered)} answers, so "
            f"{len(kept) // 2} of {len(answered) // 2} pairs are left to distil from. Train the "
            "teacher longer"
        )
    return Distilled(tuple(kept), len(answered) // 2, n_broken)


def _with_answer(prompt: Prompt, policy: Policy, defects: bool, answer: str) -> Prompt:
    """The prompt with this answer in the place from which the policy teaches."""
    if defects:
        return dataclasses.replace(prompt, defect=answer)
    if policy == "quirk_if_triggered" and prompt.triggered:
        return dataclasses.replace(prompt, quirk=answer)
    return dataclasses.replace(prompt, safe=answer)
