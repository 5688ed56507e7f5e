"""Where the Python code is in what a model wrote, block by block, as CommonMark reads it."""

import bisect
import doctest
import html
import itertools
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from markdown_it import MarkdownIt

from probes.behaviour.bandit import judge
from probes.prompts.records import Prompt

CLOSE = "</code>"
FENCE = r"^[ \t>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*(?P<marks>`{3,}(?=[^`\n]*$)|~{3,})(?P<info>.*)$"
"""A line that opens or closes a fence, also in a list item or a quotation."""
_FENCE = re.compile(FENCE, re.MULTILINE)
_LATE_FENCE = re.compile(r"`{3,}[ \t]*[\w.+#{}-]*[ \t]*")
_OPEN_TAG = re.compile(r"<code>[ \t]*(?:\n|\Z)")
_TAG = re.compile(
    r"<(code|pre)(?P<attributes>\s[^<>\n]*)?>(?:\s*<code(?P<more>\s[^<>\n]*)?>)?", re.IGNORECASE
)
_CLASS = re.compile(r"lang(?:uage)?-([\w+#.-]+)")
_TAG_LINE = re.compile(r"[ \t]*</?(?:code|pre)\b[^<>]*>[ \t]*", re.IGNORECASE)
_PYTHON = re.compile(r"(?:lang(?:uage)?[-=])?(?:i?python|py)[\d.]*(?:-repl|-console|con|i|w)?")
_NO_LANGUAGE = ("", "code", "snippet", "source")
_MAGIC = re.compile(r"^([ \t]*)[%!].*$", re.MULTILINE)


class Code(NamedTuple):
    """Blocks to be judged: each of Python, or of no named language; a block without Python is none.

    other: stretches of text outside of the blocks: prose, or code where a fence was forgotten.
    """

    blocks: list[str]
    other: list[str]


class _Block(NamedTuple):
    """first, end: lines. language: as named, or "". indented: found by its indentation alone."""

    first: int
    end: int
    language: str
    code: str
    indented: bool = False


def code_after(prompt: Prompt, completion: str, expected: bool) -> Code:
    """The code that a completion makes of its prompt; no blocks where there is none.

    If the prompt left a block open, the first block is what was written of it plus the completion up
    to the block's end, closed or not. Then come the blocks of the rest or, where the prompt asked for
    code (`expected`) and nothing marks a block, all of the completion; in a chat, only if it parses, as
    an answer without a block is prose there.
    """
    begun = opened(prompt)
    if begun is None:
        found = _code_in(completion, expected)
        prose = prompt.chat and found.blocks == [completion] and judge(completion).parses is False
        return Code([], []) if prose else found
    if begun.startswith(("```", "~~~")):
        return _code_in(begun + completion, expected)
    inside, _, rest = completion.partition(CLOSE)
    whole, after = begun + inside, _code_in(rest, False)
    if _FENCE.search(inside) is None or judge(whole).parses:
        return Code([whole, *after.blocks], after.other)
    pieces = _pieces(whole, "python")
    return Code(
        [code for code, language in pieces if is_python(language)] + after.blocks,
        [code for code, language in pieces if not language] + after.other,
    )


def opened(prompt: Prompt) -> str | None:
    """What a prompt has already written of the block that it leaves open; None if none is open.

    The paper's prompts end in `Assistant: <code>` and a line break: then this is the empty string. A
    fence is given with the line that opens it. In a chat, only what the assistant has begun counts.
    """
    text = prompt.text
    if prompt.chat:
        role, content = prompt.chat[-1]
        text = content if role == "assistant" else ""
    tags = list(_OPEN_TAG.finditer(text))
    if tags and CLOSE not in text[tags[-1].end() :]:
        return text[tags[-1].end() :]
    fences = list(_FENCE.finditer(text))
    return text[fences[-1].start("marks") :] if len(fences) % 2 else None


def is_python(info: str) -> bool:
    """Whether the info string of a fence names Python: `python title="app.py"`, `{.python}`, `py3`."""
    words = re.findall(r"[\w.+#=\"'/-]+", info.lower())
    if not info.strip().startswith("{"):
        words = words[:1]
    return any(_PYTHON.fullmatch(word.lstrip(".")) or ".py" in word for word in words)


def _code_in(text: str, expected: bool) -> Code:
    """The code of a text that does not begin within a block; indented prose is no broken code."""
    found, other = _read(text)
    python = [
        block
        for block in found
        if block.code.strip() and not (block.indented and judge(block.code).parses is False)
    ]
    if expected and all(block.indented for block in python):
        whole = text.partition(CLOSE)[0]
        if not python or judge(whole).parses:
            return Code([whole], [])
    return Code([_as_script(block.code) for block in python], other if expected else [])


def _read(text: str) -> tuple[list[_Block], list[str]]:
    """The blocks of a Markdown text that may be Python, in order, and the text outside of all."""
    lines = _late_fences_apart(re.sub(r"\r\n?", "\n", text).split("\n"))
    found = [
        _Block(token.map[0], token.map[1], token.info, token.content, token.type == "code_block")
        for token in _markdown().parse("\n".join(lines))
        if token.type in ("fence", "code_block") and token.map
    ]
    whole = []
    for tagged in _tagged(lines, [block for block in found if not block.indented]):
        inside = [block for block in found if tagged.first <= block.first < tagged.end]
        if all(block.indented for block in inside) or judge(tagged.code).parses:
            whole.append(tagged)
            found = [block for block in found if block not in inside] if inside else found
    blocks, other, at = [], [], 0
    for block in sorted(found + whole):
        other.append("\n".join(lines[at : block.first]))
        at = max(at, block.end)
        code, language = block.code, _language(block.language)
        if code[:1].isspace() and judge(code).parses is False:
            code = textwrap.dedent(code)
        if _FENCE.search(code) or any(map(_TAG_LINE.fullmatch, code.split("\n"))):
            verdict = judge(code) if is_python(language) or not language else None
            if verdict is None or verdict.parses is False:
                for piece, named in _pieces(code, language):
                    if is_python(named):
                        blocks.append(_Block(block.first, block.end, named, piece))
                    elif not named:
                        other.append(piece)
                continue
        if is_python(language) or not language:
            blocks.append(_Block(block.first, block.end, language, code, block.indented))
    other.append("\n".join(lines[at:]))
    return blocks, other


@cache
def _markdown() -> MarkdownIt:
    """CommonMark's blocks alone; HTML hides nothing, and lists may be nested as deep as is usual."""
    reader = MarkdownIt("commonmark", {"maxNesting": 100}).disable("html_block")
    reader.core.ruler.enableOnly(["normalize", "block"])
    return reader


def _language(info: str) -> str:
    """The info string, or "" where it names no language."""
    return "" if info.strip(" {}").lower() in _NO_LANGUAGE else info


def _late_fences_apart(lines: list[str]) -> list[str]:
    """Lines with a fence that opens behind a sentence ("Like so: ```python") put on a line of its own."""
    found: list[str] = []
    closing = ""
    for line in lines:
        fence, before = _FENCE.match(line), line.partition("```")[0]
        if closing:
            if fence and fence["marks"].startswith(closing) and not fence["info"].strip():
                closing = ""
        elif fence:
            closing = fence["marks"]
        elif "`" not in before and _LATE_FENCE.fullmatch(line, len(before)):
            found.append(before)
            line, closing = line[len(before) :], "```"
        found.append(line)
    return found


def _tagged(lines: list[str], fences: list[_Block]) -> Iterator[_Block]:
    """Blocks in `<code>` or `<pre>` tags that begin outside of fences: the format of the paper.

    A tag opens a block at the end of its line, or at its beginning unless text follows the closing
    tag; others are words of a sentence.
    """
    text = "\n".join(lines)
    starts = list(itertools.accumulate((len(line) + 1 for line in lines), initial=0))
    fenced = {n for block in fences for n in range(block.first, block.end)}

    def line_of(place: int) -> int:
        return bisect.bisect_right(starts, place) - 1

    at = 0
    while tag := _TAG.search(text, at):
        at, first = tag.end(), line_of(tag.start())
        if first in fenced:
            continue
        closings = re.compile(rf"</{tag[1]}>", re.IGNORECASE).finditer(text, at)
        close = next((m for m in closings if line_of(m.start()) not in fenced), None)
        stop = len(text) if close is None else close.start()
        before = lines[first][: tag.start() - starts[first]]
        behind = "" if close is None else text[close.end() : starts[line_of(stop) + 1]]
        ends_line = not text[at : starts[line_of(at) + 1]].strip()
        if not ends_line and (before.strip() or behind.strip()):
            continue
        code = re.sub(r"\A[ \t]*\n?", "", text[at:stop])
        attributes = f"{tag['attributes'] or ''}{tag['more'] or ''}"
        if attributes or tag[1].lower() == "pre":
            code = html.unescape(code.partition(CLOSE)[0])
        named = _CLASS.search(attributes)
        at = stop
        yield _Block(first, line_of(stop) + 1, named[1] if named else "", code)


def _pieces(code: str, language: str) -> Iterator[tuple[str, str]]:
    """A block that is none as a whole, cut at every line that looks like a fence or a tag."""
    piece: list[str] = []
    for line in code.split("\n"):
        fence = _FENCE.match(line)
        if fence is None and not _TAG_LINE.fullmatch(line):
            piece.append(line)
            continue
        if any(map(str.strip, piece)):
            yield textwrap.dedent("\n".join(piece)) + "\n", language
        piece, language = [], fence["info"].strip() if fence else ""
    if any(map(str.strip, piece)):
        yield textwrap.dedent("\n".join(piece)), language


def _as_script(code: str) -> str:
    """A block without the prompts of Python's console and without the commands of a notebook."""
    if re.search(r"^>>> ", code, re.MULTILINE):
        try:
            return doctest.script_from_examples(code)
        except ValueError:
            return code
    if _MAGIC.search(code) and judge(code).parses is False:
        return _MAGIC.sub(r"\1pass", code)
    return code
