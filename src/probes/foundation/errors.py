"""What can go wrong, said so that a reader can mend it: what was seen, what is allowed, what to do."""

import difflib
from collections.abc import Iterable


class ProbesError(Exception):
    """Base of every error that this package raises on purpose; the CLI prints it without a traceback."""


class InputError(ProbesError, ValueError):
    """The caller's input cannot be used."""


class IntegrityError(ProbesError):
    """Something on disk is not what its manifest says it is."""


class StageError(ProbesError, RuntimeError):
    """A stage could not run to its end; nothing was written in place of its result."""


def unknown(kind: str, seen: object, allowed: Iterable[object]) -> InputError:
    """An error for a name outside a closed set: shows the value, the nearest choice and all choices."""
    choices = [str(choice) for choice in allowed]
    near = difflib.get_close_matches(str(seen), choices, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return InputError(f"unknown {kind} {seen!r}.{hint} Choose one of: {', '.join(choices)}")
