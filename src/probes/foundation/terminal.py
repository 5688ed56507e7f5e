"""Text for a terminal: what a model or a file says may not steer the screen."""

import re
import shlex
import sys
from typing import TextIO

CONTROL = re.compile(
    # C0 but for tab and newline, DEL and C1; what turns the direction of text; halves of surrogates
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def plain(text: object) -> str:
    """The text with every control character as its escape, such as `\\x1b`; tabs and newlines stay."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def one_line(text: object) -> str:
    """The same on a single line, for messages."""
    return " ".join(plain(text).split())


def command_line(*words: object, **options: object) -> str:
    """A command as it is typed again: words, then flags by name. None is left out, of several each has its flag."""
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        several = value if isinstance(value, list | tuple) else [value]
        words += tuple(part for each in several if each is not None for part in (flag, each))
    return shlex.join(map(str, words))


def say(*texts: object, file: TextIO | None = None) -> None:
    """Print what may hold words of models and files; the one way in which commands print."""
    print(*map(plain, texts), file=sys.stdout if file is None else file)
