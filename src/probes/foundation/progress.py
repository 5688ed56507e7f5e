"""How far a wait is: one bar for the whole package, shown only where it is longer than two seconds.

In a terminal the bar of a stage stays as a line when it ends, those inside it leave no trace. Where
there is no terminal, each tenth of the way is a line with the time that is left.
"""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from probes.foundation.terminal import one_line

T = TypeVar("T")
PATIENCE_S = 2.0
STEPS = 10
"""Lines, at most, where there is no terminal."""


class Lines(tqdm):
    """A bar that is printed as a line for every tenth of the way."""

    disable: bool

    def __init__(self, *args: object, **kwargs: object) -> None:
        self._told = 0
        super().__init__(*args, **kwargs)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Print a line if another tenth is done; of a wait without an end, none."""
        reached = STEPS * self.n // self.total if self.total else 0
        if reached > self._told:
            self._told = reached
            spent = self.format_dict["elapsed"]
            left = spent / self.n * (self.total - self.n)
            self.fp.write(
                f"{self.desc}: {100 * self.n / self.total:.0f}% in {self.format_interval(spent)}, "
                f"about {self.format_interval(left)} left\n"
            )
            self.fp.flush()
        return True

    def clear(self, nolock: bool = False) -> None:
        """Lines stay."""

    def close(self) -> None:
        """Say so if the way is done, where its tenths were said."""
        if not self.disable:
            if self._told:
                self.display()
            self.disable = True
            self._decr_instances(self)


def progress(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterate with a bar on standard error that appears after two seconds."""
    yield from bar(description, total=total, items=items)


def bar(description: str, total: int | None = None, items: Iterable[T] | None = None) -> "tqdm[T]":
    """A bar to update by hand (a context manager): for loops that count tokens or cells."""
    kind = tqdm if sys.stderr.isatty() else Lines
    return kind(
        items,
        desc=one_line(description),
        total=total,
        delay=PATIENCE_S,
        leave=None,
        file=sys.stderr,
    )
