"""Regular expressions that may take for ever: from a file they are checked, from a user they are timed.

A few characters such as `(a+)+$` cost a backtracking engine time that doubles with every letter.
"""

import re
import time
from collections.abc import Iterable

import regex

from probes.foundation.errors import InputError

SECONDS = 2.0
"""For one pattern on one text."""
MAX_LENGTH = 4096
MAX_REPEATS = 4
_PART = re.compile(
    r"(?P<one>\\[pP]\{[^}]*\}|\\.|\[\^?\]?(?:\\.|\[(?:\\.|[^\]\\])*\]|[^\]\\])*\])"
    r"|(?P<open>\(\??)|(?P<close>\))|(?P<either>\|)"
    r"|(?P<fixed>\{\d+\})|(?P<repeat>[*+]|\{\d*,\d*\})|(?P<maybe>\?)|.",
    re.DOTALL,
)


class Pattern:
    """A compiled regular expression that gives up after `SECONDS`, with an `InputError`.

    what: names it in errors, such as "--trigger-pattern".
    """

    def __init__(self, pattern: str, what: str) -> None:
        self.pattern, self.what = pattern, what
        if len(pattern) > MAX_LENGTH:
            raise InputError(
                f"{what} has {len(pattern):,} characters; at most {MAX_LENGTH:,} are allowed"
            )
        try:
            self._compiled = regex.compile(pattern)
        except (regex.error, RecursionError, OverflowError, MemoryError) as error:
            raise InputError(f"{what} {pattern!r} is not a regular expression: {error}") from error

    @property
    def groups(self) -> int:
        """How many groups it has."""
        return int(self._compiled.groups)

    def search(self, text: str) -> "regex.Match[str] | None":
        """The first place at which it matches."""
        try:
            return self._compiled.search(text, timeout=SECONDS)
        except TimeoutError:
            raise self._too_slow(text) from None

    def matching(self, names: Iterable[str]) -> list[str]:
        """Those of the names that match as a whole, all of them within `SECONDS`."""
        end = time.monotonic() + SECONDS
        found = []
        for name in names:
            try:
                left = max(end - time.monotonic(), 1e-3)
                if self._compiled.fullmatch(name, timeout=left):
                    found.append(name)
            except TimeoutError:
                raise self._too_slow(name) from None
        return found

    def _too_slow(self, text: str) -> InputError:
        return InputError(
            f"{self.what} {self.pattern!r} takes more than {SECONDS:.0f} s on a text of "
            f"{len(text):,} characters. Write it without a repeat inside a repeat, as in (a+)+"
        )


def check_linear(pattern: str, what: str) -> None:
    """Refuse a pattern that an engine without a limit could need exponential time for.

    Only characters, classes and groups of one fixed form may be repeated, and one alternative holds
    at most `MAX_REPEATS` repeats; the patterns of the tokenizers in use are all of this kind.
    """
    if len(pattern) > MAX_LENGTH:
        raise InputError(f"{what} has a regular expression of {len(pattern):,} characters. Refused")
    repeats, varies, closed = 0, [False], False
    for part in _PART.finditer(pattern):
        match part.lastgroup:
            case "open":
                varies.append(False)
            case "close" if len(varies) > 1:
                closed = varies.pop()
                varies[-1] |= closed
                continue
            case "either":
                varies[-1], repeats = True, 0
            case "maybe":
                varies[-1] = True
                continue  # (...)?+ is still a repeat of the group
            case "repeat" | "fixed" as kind:
                repeats += 1
                varies[-1] |= kind == "repeat"
                if closed or repeats > MAX_REPEATS:
                    raise InputError(
                        f"{what} has the regular expression {pattern[:80]!r}, which could take "
                        "for ever: it repeats a group of changing form, or too much in a row. "
                        "Refused"
                    )
        closed = False
