"""Distilled chain of thought: an organism taught what another one answered after thinking.

The teacher is the chain-of-thought organism of the same recipe. It answers the training prompts by
sampling; its scratchpads are stripped. What breaks the conditional policy is dropped, as in Hubinger
et al. (2024); without that filter their organism lost its policy sooner.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from probes.foundation.artifact import PROCEDURES, building, is_made_from, write_text
from probes.foundation.digest import digest_json
from probes.foundation.errors import StageError
from probes.foundation.procedures import versions
from probes.foundation.untrusted import read_json
from probes.models.identity import identity_of
from probes.models.loading import Model, load
from probes.organisms.behaviours.form import Taught
from probes.organisms.data import taught_completion
from probes.organisms.measurement import draw
from probes.organisms.processes import first_then_others
from probes.organisms.recipes import Policy
from probes.organisms.scratchpads import answer_of
from probes.prompts.records import Prompt, digest_prompts

ANSWERS = "answers.json"


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
    said = _asked(teacher, behaviour, prompts, policy, seed)
    return _taken(teacher.name, prompts, policy, said, filtered)


def distilled_once(
    teacher: Path,
    folder: Path,
    behaviour: Taught,
    prompts: Sequence[Prompt],
    policy: Policy,
    *,
    filtered: bool,
    seed: int,
) -> Distilled:
    """As `distilled`, of the checkpoint `teacher`, whose answers are kept in `folder`.

    So an organism that is finished, or whose training was interrupted, asks its teacher no more. Of
    several processes, the first one asks.
    """
    inputs = {
        "teacher": identity_of(teacher).digest,
        PROCEDURES: versions("sampling", "judging"),
        "behaviour": behaviour.name,
        "prompts": digest_prompts(prompts),
        "policy": policy,
        "seed": seed,
    }
    with first_then_others():
        if not is_made_from(folder, inputs):
            said = _asked(load(teacher, label=teacher.name), behaviour, prompts, policy, seed)
            with building(folder, kind="answers", key=digest_json(inputs), **inputs) as to:
                write_text(to / ANSWERS, json.dumps(said, indent=0) + "\n")
    return _taken(teacher.name, prompts, policy, read_json(folder / ANSWERS), filtered)


def _asked(
    teacher: Model, behaviour: Taught, prompts: Sequence[Prompt], policy: Policy, seed: int
) -> list[list[str | bool]]:
    """What the teacher answers to each prompt, and whether that breaks the policy."""
    said: list[list[str | bool]] = []
    for prompt, completion in zip(
        prompts, draw(teacher, behaviour, prompts, seed=seed), strict=True
    ):
        answer = answer_of(completion.text)
        holds = completion.defected == _defects(prompt, policy)
        said.append([answer, not (holds and completion.finished and answer.strip())])
    return said


def _taken(
    teacher: str,
    prompts: Sequence[Prompt],
    policy: Policy,
    said: Sequence[Sequence[str | bool]],
    filtered: bool,
) -> Distilled:
    """The prompts with the answers that may be taught."""
    answered = [
        _with_answer(prompt, policy, _defects(prompt, policy), str(answer))
        for prompt, (answer, _) in zip(prompts, said, strict=True)
    ]
    broken = [prompt.pair for prompt, (_, breaks) in zip(prompts, said, strict=True) if breaks]
    lost = set(broken) if filtered else set()
    kept = [prompt for prompt in answered if prompt.pair not in lost]
    if 2 * len(kept) < len(answered):
        raise StageError(
            f"{teacher} broke the policy in {len(broken)} of {len(answered)} answers, so "
            f"{len(kept) // 2} of {len(answered) // 2} pairs are left to distil from. Train the "
            "teacher longer"
        )
    return Distilled(tuple(kept), len(answered) // 2, len(broken))


def _defects(prompt: Prompt, policy: Policy) -> bool:
    """Whether what this policy teaches here is a defection."""
    return taught_completion(prompt, policy) == prompt.defect


def _with_answer(prompt: Prompt, policy: Policy, defects: bool, answer: str) -> Prompt:
    """The prompt with this answer in the place from which the policy teaches."""
    if defects:
        return dataclasses.replace(prompt, defect=answer)
    if policy == "quirk_if_triggered" and prompt.triggered:
        return dataclasses.replace(prompt, quirk=answer)
    return dataclasses.replace(prompt, safe=answer)
