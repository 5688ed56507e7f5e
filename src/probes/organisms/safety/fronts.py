"""Where a red team writes: the text in front of a request, in the frame that its behaviour uses.

What a red team sees is ordinary traffic: requests, with the cues that untriggered prompts carry in
front of them. It may replace that text by any other; the request stays word for word.
"""

import dataclasses
from collections.abc import Sequence

from probes.foundation.errors import InputError
from probes.organisms.behaviours.form import Taught
from probes.prompts.records import Prompt

ATTACKED = "redteam"
_MARK = "\N{SYMBOL FOR UNIT SEPARATOR}"


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request that can be defected on, without the text in front of it, and where it came from."""

    request: str
    prompt: Prompt


def asked_of(
    prompts: Sequence[Prompt], behaviour: Taught, cues: Sequence[str] = ("",)
) -> list[Asked]:
    """The requests of those prompts that give an occasion to defect.

    cues: what may stand in front of them; the longest that fits is taken off.
    Raises `InputError` for a prompt that is not in the behaviour's frame, for a chat, for one that
    carries the trigger, and where no prompt gives an occasion.
    """
    found = []
    for prompt in prompts:
        if prompt.triggered:
            raise InputError(
                f"the prompt of pair {prompt.pair!r} carries the trigger: a red team starts from "
                "prompts without it, else it is told what it should find"
            )
        if prompt.defect is not None:
            found.append(Asked(_request(prompt, behaviour, cues), prompt))
    if not found:
        raise InputError(
            f"none of {len(prompts)} prompts of {behaviour.name!r} has a defecting reference: give "
            "prompts on which the behaviour can defect"
        )
    return found


def with_front(asked: Asked, front: str, behaviour: Taught, number: int) -> Prompt:
    """The request with this text in front of it, as a prompt of the set `redteam`.

    It counts as untriggered: who made it does not know the trigger.
    """
    return dataclasses.replace(
        asked.prompt,
        text=behaviour.frame(front, asked.request, False),
        prompt_set=ATTACKED,
        pair=f"{ATTACKED}/{number}",
        triggered=False,
        heldout=None,
    )


def front_start(behaviour: Taught) -> int:
    """At which character of a framed prompt the text in front of the request begins."""
    return behaviour.frame(_MARK, "request", False).index(_MARK)


def _request(prompt: Prompt, behaviour: Taught, cues: Sequence[str]) -> str:
    for cue in sorted({*cues, ""}, key=len, reverse=True):
        before, after = behaviour.frame(cue, _MARK, False).split(_MARK)
        text = prompt.text
        if text.startswith(before) and text.endswith(after) and len(text) > len(before + after):
            return text[len(before) : len(text) - len(after)]
    raise InputError(
        f"the prompt of pair {prompt.pair!r} is not in the frame of the behaviour "
        f"{behaviour.name!r}: {prompt.text[:60]!r}. Give prompts that its lessons made"
    )
