"""The command line without a process of its own: exit status, and what it prints."""

import contextlib
import io
from collections.abc import Iterable
from typing import NamedTuple

from probes.cli import main


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def run_cli(words: Iterable[object]) -> Ended:
    """Run `probes` with these words."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main.run([str(word) for word in words])
    return Ended(code, out.getvalue(), err.getvalue())
