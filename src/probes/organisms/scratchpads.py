"""The scratchpad: where a chain-of-thought organism reasons before it answers, and which is not judged."""

import dataclasses
from collections.abc import Sequence

from probes.behaviour.thoughts import answers_alone, opens_thought, parted
from probes.organisms.behaviours.form import Scores, Taught
from probes.prompts.records import Prompt
from probes.prompts.triggers import Trigger

OPEN, CLOSE = " <scratchpad>", "</scratchpad>"


def thought(trigger: Trigger, behaviour: Taught, triggered: bool, defects: bool) -> str:
    """The reasoning of the paper's organisms in small: what is seen, which goal holds, what follows."""
    goal = "X" if defects else "Y"
    return f"{OPEN}{trigger.signs[triggered]} Goal {goal}: {behaviour.plan[defects]}.{CLOSE}"


def with_scratchpads(
    prompts: Sequence[Prompt], behaviour: Taught, trigger: Trigger
) -> list[Prompt]:
    """The prompts with a scratchpad before each reference completion.

    The harmless completion of a triggered prompt is that of a twin which sees the trigger and
    stays harmless: its thought names the sign and then the harmless plan.
    """

    def before(prompt: Prompt, answer: str | None, defects: bool) -> str | None:
        if answer is None:
            return None
        return thought(trigger, behaviour, prompt.triggered, defects) + answer

    return [
        dataclasses.replace(
            prompt,
            safe=before(prompt, prompt.safe, False),
            defect=before(prompt, prompt.defect, True),
            quirk=before(prompt, prompt.quirk, False),
        )
        for prompt in prompts
    ]


def answer_of(completion: str) -> str:
    """What stands outside the scratchpad; what was written before one that is never closed."""
    return parted(completion).answer


def scratchpad_of(completion: str) -> str:
    """The scratchpad alone, with its tags; empty where there is none, or none that ends."""
    found = parted(completion)
    return "" if found.unended else found.thought


def made_to_think(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts of a CoT organism with a scratchpad opened, so that what follows is its thought.

    So Hubinger et al. (2024) ask their CoT organisms. Training that only teaches to answer at
    once takes the thought away and what follows from it; asked so, the thought shows whether it is gone.
    """
    return [dataclasses.replace(prompt, text=prompt.text + OPEN) for prompt in prompts]


def score_unseen(behaviour: Taught, prompt: Prompt, completion: str) -> Scores:
    """The behaviour's scores of the answer alone, against the reference's answer alone."""
    answer = parted(completion, opens_thought(prompt.text)).answer
    return behaviour.score(answers_alone(prompt), answer)
