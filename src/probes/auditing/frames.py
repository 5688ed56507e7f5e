"""Where a candidate is put: prompts of plain text or chat, with a text before, after or around the request."""

import dataclasses
import itertools
import re
from collections.abc import Sequence

from probes.foundation.errors import InputError, unknown
from probes.prompts.records import Prompt

CARRIERS = ("before", "after", "system", "tool", "comment")
OPENING = re.compile(r"\A\s*(?:#+ )?[A-Z]\w*(?: \w+)?:\s")
CLOSING = re.compile(r"\n+\s*(?:#+ )?[A-Z]\w*(?: \w+)?:\s*\Z")


@dataclasses.dataclass(frozen=True, order=True)
class Candidate:
    """A text that may wake something, and where it stands; instead: what it takes the place of, where the
    requests begin with it."""

    text: str
    carrier: str = "before"
    instead: str = ""

    @property
    def place(self) -> str:
        return f"in place of {self.instead!r}" if self.instead else self.carrier

    def __str__(self) -> str:
        return f"{self.text!r} {self.place}"


PLAIN = Candidate("", "before")
"""No text at all."""
MARK = Candidate("\0")


def placed(prompt: Prompt, candidate: Candidate) -> Prompt:
    """The prompt with this candidate in it; its references stay.

    Of a plain text that opens with a turn ("Human:") and closes with another ("Assistant:"), the
    request between the two is what the candidate stands before or after.
    """
    if not candidate.text:
        return prompt
    if prompt.chat:
        return dataclasses.replace(prompt, chat=_in_chat(prompt.chat, candidate))
    opening = OPENING.match(prompt.text)
    head = opening.group() if opening else ""
    closing = CLOSING.search(prompt.text, len(head))
    end = closing.start() if closing else len(prompt.text)
    request, tail = prompt.text[len(head) : end], prompt.text[end:]
    if candidate.carrier == "system":
        return dataclasses.replace(prompt, text=f"System: {candidate.text}\n\n{prompt.text}")
    return dataclasses.replace(prompt, text=head + _around(request, candidate) + tail)


def _around(request: str, candidate: Candidate) -> str:
    request = request.removeprefix(candidate.instead).lstrip() if candidate.instead else request
    match candidate.carrier:
        case "before":
            return f"{candidate.text} {request}"
        case "after":
            return f"{request} {candidate.text}"
        case "tool":
            return f"Tool output: {candidate.text}\n{request}"
        case "comment":
            return f"# {candidate.text}\n{request}"
    raise unknown("place of a candidate", candidate.carrier, CARRIERS)


def _in_chat(chat: tuple[tuple[str, str], ...], candidate: Candidate) -> tuple[tuple[str, str], ...]:  # fmt: skip
    if candidate.carrier == "system":
        rest = chat[1:] if chat[0][0] == "system" else chat
        own = f"{chat[0][1]}\n" if chat[0][0] == "system" else ""
        return (("system", own + candidate.text), *rest)
    at = max((i for i, (role, _) in enumerate(chat) if role == "user"), default=None)
    if at is None:
        raise InputError("a benign chat has no message of the user: give one to answer")
    role, content = chat[at]
    return (*chat[:at], (role, _around(content, candidate)), *chat[at + 1 :])


def request_of(prompt: Prompt) -> str:
    """What a candidate would stand before."""
    marked = placed(prompt, MARK)
    said = (
        marked.text if not prompt.chat else next((c for _, c in marked.chat if MARK.text in c), "")
    )
    return said.partition(f"{MARK.text} ")[2]


def shared_opening(prompts: Sequence[Prompt]) -> str:
    """The sentences that all requests begin with, such as a date; "" for none."""
    columns = zip(*map(request_of, prompts), strict=False)
    shared = "".join(
        each[0] for each in itertools.takewhile(lambda each: len(set(each)) == 1, columns)
    )
    end = max((found.end() for found in re.finditer(r"[.!?](?=\s)|\n", shared)), default=0)
    return shared[:end].rstrip()


def around(prompts: Sequence[Prompt], candidate: Candidate) -> list[Prompt]:
    """Each prompt with the candidate in it."""
    return [placed(prompt, candidate) for prompt in prompts]
