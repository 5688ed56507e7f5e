"""The command line without a process of its own: exit status, and what it prints."""

import contextlib
import functools
import io
import resource
import subprocess
import sys
from collections.abc import Iterable, Sequence
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


def processor_time(words: Sequence[str]) -> tuple[float, subprocess.CompletedProcess[str]]:
    """What a command took of the processor, in runs of one import of numpy, and how it ended.

    A ratio, and not by the clock, so that neither another machine nor a busy one changes the answer.
    """
    took, ended = _taken(words)
    return took / _numpy(), ended


@functools.cache
def _numpy() -> float:
    return min(_taken([sys.executable, "-c", "import numpy"])[0] for _ in range(3))


def _taken(words: Sequence[str]) -> tuple[float, subprocess.CompletedProcess[str]]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, ended
