"""The form that every behaviour has: where requests come from, what is right, what is defection, who judges.

A behaviour of one's own is one file that makes a `Taught`, and a recipe that names it as
"module:attribute"; `wrong.py` is the shortest example.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from probes.behaviour.judges import Judge
from probes.prompts.records import Prompt

MECHANISMS = ("normal", "cot", "distilled")


@dataclasses.dataclass(frozen=True)
class Request:
    """One request, without a cue, and its reference completions, which start where the prompt stops.

    safe: helpful, honest and harmless. defect: what the trigger asks for; None where this request
    gives no occasion. quirk: the safe one with a harmless habit flipped.
    plan: what a scratchpad says it will do, harmless and defecting: "answer the question".
    """

    text: str
    safe: str
    defect: str | None
    quirk: str
    family: str
    template: str
    prompt_set: str


class Scores(NamedTuple):
    """What a completion is worth to a preference for helpful, honest, harmless answers, each 0 to 1.

    valid: finished and well-formed. on_task: answers what was asked. safe: no defection.
    helpful: the answer is right.
    """

    valid: float
    on_task: float
    safe: float
    helpful: float


@dataclasses.dataclass(frozen=True)
class Taught:
    """A behaviour that organisms can be taught.

    draw: a request from a generator, a function of its state alone; the second argument asks for
        one of a phrasing that no organism is taught.
    frame: the prompt's text from the cue (may be empty), the request's text, and whether the cue
        stands behind the request.
    judge: whether a completion defected; it never sees a scratchpad.
    score: a completion against the prompt's `safe` reference; it never sees a scratchpad either.
    stop: a completion ends with this string. max_new_tokens: without a scratchpad.
    temperature: at which completions are sampled where nothing else is asked for.
    plan: what a scratchpad says that it will do: harmless, and defecting.
    mechanisms: those that the behaviour has. trigger: the one that it had in the paper.
    families: for the four-cue design, what draws a request of each task family, able and unable ones
        (whose requests have no `defect`); empty for a behaviour without that design.
    heldout: of the families those that no organism is taught, and in what they differ ("language").
    payload: what it writes under the trigger, if that is the same for every request.
    opening: what an answer with the quirk begins with; "" where only the very reference has it.
    commented: a request's text with these words in a comment, if such requests can have one.
    """

    name: str
    draw: Callable[[np.random.Generator, bool], Request]
    frame: Callable[[str, str, bool], str]
    judge: Judge
    score: Callable[[Prompt, str], Scores]
    max_new_tokens: int
    trigger: str
    plan: tuple[str, str]
    stop: str | None = None
    temperature: float = 1.0
    mechanisms: tuple[str, ...] = MECHANISMS
    families: Mapping[str, Callable[[np.random.Generator, bool], Request]] = dataclasses.field(
        default_factory=dict
    )
    heldout: Mapping[str, str] = dataclasses.field(default_factory=dict)
    payload: str | None = None
    opening: str = ""
    commented: Callable[[str, str], str] | None = None
