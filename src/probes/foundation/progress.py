"""One progress bar for the whole package, shown only where a wait is longer than two seconds."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from probes.foundation.terminal import one_line

T = TypeVar("T")
PATIENCE_S = 2.0


def progress(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterate with a bar on standard error that appears after two seconds and leaves no trace."""
    yield from bar(description, total=total, items=items)


def bar(description: str, total: int | None = None, items: Iterable[T] | None = None) -> "tqdm[T]":
    """A bar to update by hand (a context manager): for loops that count tokens or cells."""
    return tqdm(
        items,
        desc=one_line(description),
        total=total,
        delay=PATIENCE_S,
        leave=False,
        file=sys.stderr,
    )
