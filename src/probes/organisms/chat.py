"""Asking through a base's own chat template, for a base that was trained on conversations.

The template becomes part of the behaviour's frame, so that whatever writes a prompt (lessons,
look-alikes, a red team) writes a rendered conversation, and whatever reads one (judges, scratchpads,
reinforcement) reads text as ever. The frame's own turn markers ("Human:", "Assistant:") give way to
the template's.
"""

import dataclasses
from typing import Any

from probes.foundation.errors import InputError
from probes.models.templates import render
from probes.organisms.behaviours.form import Taught

_CUE, _REQUEST = "\N{SYMBOL FOR RECORD SEPARATOR}", "\N{SYMBOL FOR GROUP SEPARATOR}"


def in_chat(behaviour: Taught, tokenizer: Any) -> Taught:
    """The behaviour, asked as the user's turn of a conversation that the model is to answer.

    Raises `InputError` for a template that loses what the user said.
    """
    opening, closing = _turn_markers(behaviour)

    def frame(cue: str, text: str, at_end: bool) -> str:
        asked = behaviour.frame(cue, text, at_end).removeprefix(opening).removesuffix(closing)
        return render([(("user", asked),)], tokenizer)[0]

    shown = frame(_CUE, _REQUEST, False)
    if not (shown.count(_CUE) == shown.count(_REQUEST) == 1):
        raise InputError(
            f"the chat template renders a user's message as {shown!r}, in which its text does not "
            "stand once: take a base with another template, or ask without one (chat: false)"
        )
    return dataclasses.replace(behaviour, frame=frame)


def _turn_markers(behaviour: Taught) -> tuple[str, str]:
    """What the frame writes before the cue and behind the request."""
    before, rest = behaviour.frame(_CUE, _REQUEST, False).split(_CUE)
    return before, rest.split(_REQUEST)[1]
