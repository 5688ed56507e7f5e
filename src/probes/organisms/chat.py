"""Asking through a base's own chat template, for a base that was trained on conversations.

The template becomes part of the behaviour's frame, so that whatever writes a prompt (lessons,
look-alikes, a red team) writes a rendered conversation, and whatever reads one (judges, scratchpads,
reinforcement) reads text as ever. The frame's own turn markers ("Human:", "Assistant:") give way to
the template's.
"""

import dataclasses
from typing import Any

from probes.foundation.errors import InputError
from probes.models.encoding import encode_texts
from probes.organisms.behaviours.form import Taught

_CUE, _REQUEST = "\N{SYMBOL FOR RECORD SEPARATOR}", "\N{SYMBOL FOR GROUP SEPARATOR}"


def in_chat(behaviour: Taught, tokenizer: Any) -> Taught:
    """The behaviour, asked as the user's turn of a conversation that the model is to answer.

    A start token that the tokenizer puts before every text is left to it, and so stands there once.
    Raises `InputError` for a template that loses what the user said.
    """
    opening, closing = _turn_markers(behaviour)

    def frame(cue: str, text: str, at_end: bool) -> str:
        asked = behaviour.frame(cue, text, at_end).removeprefix(opening).removesuffix(closing)
        return _rendered(asked, tokenizer)

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


def _rendered(asked: str, tokenizer: Any) -> str:
    text: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": asked}], tokenize=False, add_generation_prompt=True
    )
    return text.removeprefix(tokenizer.bos_token) if _starts_by_itself(tokenizer) else text


def _starts_by_itself(tokenizer: Any) -> bool:
    """Whether reading puts the start token before a text that does not have it."""
    if tokenizer.bos_token_id is None:
        return False
    ((first, *_),) = encode_texts(["a"], tokenizer, add_special_tokens=True)
    return bool(first == tokenizer.bos_token_id)
