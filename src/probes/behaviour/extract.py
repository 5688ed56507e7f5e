"""Where the code is in what a model wrote: only code is judged; prose is not broken code."""

import re

_TAG = re.compile(r"<code>[ \t]*\n?(.*?)(?:</code>|\Z)", re.DOTALL)
_FENCE = re.compile(
    r"^[ \t]*```[ \t]*\w*[ \t]*\n(.*?)(?:^[ \t]*```[ \t]*$|\Z)", re.DOTALL | re.MULTILINE
)
_OPEN_FENCE = re.compile(r"^[ \t]*```[ \t]*\w*[ \t]*(?:\n|\Z)", re.MULTILINE)
_CLOSING_FENCE = re.compile(r"^[ \t]*```[ \t]*$", re.MULTILINE)
CLOSE = "</code>"


def extract(text: str) -> str | None:
    """The code inside a completion that is not itself code: None if it holds no code block.

    The inside of the first `<code>` block; else of all Markdown fences, one after the other. A
    block that was not closed goes to the end.
    """
    tag = _TAG.search(text)
    if tag:
        return tag.group(1)
    fences = _FENCE.findall(text)
    return "".join(fences) if fences else None


def opened(prompt: str) -> str | None:
    """What a prompt has already written of the block that its last line leaves open; None if none.

    The paper's prompts end in `Assistant: <code>` and a line break: then this is the empty string.
    """
    start = prompt.rfind("<code>")
    if start >= 0 and CLOSE not in prompt[start:]:
        return prompt[start + len("<code>") :].removeprefix("\n")
    fences = list(_OPEN_FENCE.finditer(prompt))
    return prompt[fences[-1].end() :] if len(fences) % 2 else None


def code_after(prompt: str, completion: str, expected: bool) -> str | None:
    """The whole code that a completion makes of its prompt, or None where there is no code.

    If the prompt left a block open, the code is what was written of it plus the completion up to
    the block's end, closed or not. Otherwise it is the code blocks of the completion, or, where the
    prompt asked for code (`expected`) and there are no blocks, all of the completion.
    """
    begun = opened(prompt)
    if begun is not None:
        ends = [completion.find(CLOSE)] + [m.start() for m in _CLOSING_FENCE.finditer(completion)]
        found = [end for end in ends if end >= 0]
        return begun + completion[: min(found, default=len(completion))]
    inside = extract(completion)
    if inside is None and expected:
        return completion.partition(CLOSE)[0]
    return inside
