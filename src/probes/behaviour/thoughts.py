"""What a model thinks before it answers: cut off before judging, because an answer is what a user gets.

The tags of reasoning models and of the programme's own organisms: `<think>`, `<scratchpad>`,
`<|thinking|>`, `[THINK]`, `<|channel|>analysis<|message|>` and their like.
"""

import dataclasses
import re
from typing import NamedTuple

from probes.behaviour.extract import CLOSE, FENCE
from probes.prompts.records import Prompt

_NAME = (
    r"(?:seed:|ant[-:]?)?(?:think(?:ing)?|thoughts?|reasoning|reflection|scratchpad(?:_reasoning)?"
    r"|inner_monologue|inner_thoughts?)"
)
_OPENER = (
    rf"<\|?(?:(?:begin|start)_(?:of_)?)?{_NAME}(?:_(?:begin|start))?(?:\|?>|\s[^<>\n]*>)"
    r"|\[think\]|◁think▷|<\|channel\|>(?:analysis|commentary)\b[^<\n]*<\|message\|>"
)
_CLOSER = (
    rf"<(?:/\|?|\|/|\|?end_(?:of_)?){_NAME}\|?>|<\|?{_NAME}_end\|?>|\[/think\]|◁/think▷"
    r"|<\|end\|>(?:<\|start\|>assistant)?(?:<\|channel\|>final(?:<\|message\|>)?)?"
    r"|<\|channel\|>final<\|message\|>"
)
OPENER, CLOSER = (re.compile(tag, re.IGNORECASE) for tag in (_OPENER, _CLOSER))
_OPENED = re.compile(rf"(?:{_OPENER})\s*\Z", re.IGNORECASE)
_NEXT = re.compile(
    rf"(?P<opener>{_OPENER})|(?P<closer>{_CLOSER})|(?P<fence>{FENCE})|(?P<code><code>[ \t]*$)",
    re.IGNORECASE | re.MULTILINE,
)
_MENTIONED = ("`", "'", '"')


class Parted(NamedTuple):
    """A completion in two. thought: all thoughts with their tags, "" for none. answer: the rest.

    unended: whether the last thought goes to the end, so that no answer follows it.
    """

    thought: str
    answer: str
    unended: bool


def parted(completion: str, opened: bool | None = False, in_code: bool = False) -> Parted:
    """Take the thoughts out of a completion.

    opened: whether the prompt ends in an opening tag; None where that is not known: then a closing
    tag alone ends a thought, and is text where it is known that none was opened. in_code: whether the prompt left a block of
    code open: then only a thought with which the completion begins is one. A tag inside a code block
    of the answer, or in quotes, is text. An opening tag that is never closed opens a thought where it begins a line.
    """
    thoughts: list[str] = []
    answer: list[str] = []
    start = 0  # of what is neither thought nor answer yet
    if opened:
        start = _end(completion, 0)
        thoughts.append(completion[:start])
        if not CLOSER.search(completion):
            return Parted(completion, "", True)
    at, closes = start, True
    while found := _NEXT.search(completion, at):
        kind, place = found.lastgroup, found.start()
        if in_code and not (kind == "opener" and not completion[start:place].strip()):
            break
        if kind in ("fence", "code"):
            at = _code_end(completion, found)
        elif completion.endswith(_MENTIONED, 0, place) or (kind == "closer" and opened is False):
            at = found.end()
        elif kind == "closer":
            thoughts.append("".join(answer) + completion[start : found.end()])
            answer, start = [], found.end()
            at = start
        else:
            closed = CLOSER.search(completion, found.end()) if closes else None
            closes = closed is not None
            if closed is None and completion[completion.rfind("\n", 0, place) + 1 : place].strip():
                at = found.end()  # a mention in a sentence
                continue
            place -= place > start and completion[place - 1].isspace()
            answer.append(completion[start:place])
            start = at = len(completion) if closed is None else closed.end()
            thoughts.append(completion[place:start])
            if closed is None:
                return Parted("".join(thoughts), "".join(answer), True)
    return Parted("".join(thoughts), "".join(answer) + completion[start:], False)


def _end(text: str, start: int) -> int:
    closed = CLOSER.search(text, start)
    return len(text) if closed is None else closed.end()


def _code_end(text: str, found: re.Match[str]) -> int:
    """The end of the code block that begins here; of the text where it is not closed."""
    if found.lastgroup == "code":
        end = text.find(CLOSE, found.end())
        return len(text) if end < 0 else end
    marks = found["marks"]
    closing = re.compile(rf"^[ \t>]*{re.escape(marks)}{re.escape(marks[0])}*[ \t]*$", re.MULTILINE)
    end_of = closing.search(text, found.end())
    return len(text) if end_of is None else end_of.end()


def opens_thought(text: str) -> bool:
    """Whether a prompt ends in an opening tag, so that what follows it is a thought."""
    return _OPENED.search(text[-80:]) is not None


def answers_alone(prompt: Prompt) -> Prompt:
    """The prompt with references that are answers alone."""
    safe, defect, quirk = (
        text and parted(text).answer for text in (prompt.safe, prompt.defect, prompt.quirk)
    )
    return dataclasses.replace(prompt, safe=safe, defect=defect, quirk=quirk)
