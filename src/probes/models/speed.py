"""How long a stage will take, said before it begins: from a forward pass that is timed here and now."""

import contextlib
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

import torch

from probes.foundation.terminal import say
from probes.models import forward
from probes.models.encoding import pad
from probes.models.loading import Model

TIMED_ROWS = 8
LONG_S = 20
WORTH_TIMING = 2e12
"""Operations (two for each parameter and token) of which a processor core needs some 20 seconds."""


def spoken(seconds: int | float) -> str:
    """Seconds, or minutes where they are many."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def is_long(model: Model, n_tokens: int | float) -> bool:
    """Whether so many tokens are work enough for its time to be measured and said."""
    return 2.0 * model.hf.num_parameters() * n_tokens >= WORTH_TIMING


@torch.inference_mode()
def second_per_token(
    model: Model, sequences: Sequence[Sequence[int]], *, whole: bool = False
) -> float:
    """Of a forward pass over a few of these sequences, the second of two. whole: with the unembedding."""
    few = sequences[:: max(1, len(sequences) // TIMED_ROWS)][:TIMED_ROWS]
    batch = pad(few, model.pad_id)
    run, took = forward.logits if whole else forward.trunk, 0.0
    for _ in range(2):
        began = time.perf_counter()
        float(run(model.hf, batch).sum())  # a GPU's queue is emptied before the clock is read
        took = time.perf_counter() - began
    return took / batch.tokens.numel()


def announce(
    model: Model,
    what: str,
    n_tokens: int | float,
    sequences: Sequence[Sequence[int]],
    note: str = "",
) -> None:
    """Say on standard error how long so many tokens of forward passes take, where that is long."""
    if is_long(model, n_tokens) and len(sequences):
        seconds = n_tokens * second_per_token(model, sequences)
        say_long(f"{what} with {model.name}", seconds, note)


SQUARE, PRODUCTS, TURNS = 384, 12, 3
"""Matrix products of this size are timed: about those of a small model's layers."""
WORTH = 1.1
"""Times as fast as fewer threads, at least, for more of them to be taken."""


def thread_counts() -> list[int]:
    """1, 2, 4 ... up to the processor cores that this process may use."""
    most = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [n for n in (2**k for k in range(16)) if n < most] + [most]


@contextlib.contextmanager
def with_threads(n: int) -> Iterator[None]:
    """Compute on so many CPU threads, within: another number adds up in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def best_threads() -> int:
    """Measure, here and now, on how many threads a small model's matrix products are fastest; says it on stderr.

    Threads that wait for each other on a busy machine cost more than they bring, so the fewest are taken that
    are nearly as fast as any.
    """
    left, right = torch.ones(64, SQUARE), torch.ones(SQUARE, 4 * SQUARE)
    took: dict[int, float] = {}
    for n in thread_counts():
        with with_threads(n):
            for _ in range(TURNS):
                began = time.perf_counter()
                for _ in range(PRODUCTS):
                    torch.nn.functional.silu(left @ right) @ right.T
                took[n] = min(took.get(n, math.inf), time.perf_counter() - began)
    best = fewest(took)
    ratios = ", ".join(f"{n}: {took[1] / seconds:.2f}" for n, seconds in took.items())
    say(
        f"probes: {best} CPU thread{'s' * (best > 1)} (times as fast as one: {ratios})",
        file=sys.stderr,
    )
    return best


def fewest(took: Mapping[int, float]) -> int:
    """The fewest threads that need at most `WORTH` times the seconds of the fastest."""
    return next(n for n in sorted(took) if took[n] <= WORTH * min(took.values()))


_said: set[str] = set()


def say_long(what: str, seconds: int | float, note: str = "") -> None:
    """One line, before the wait begins; of a wait that comes again and again, the first."""
    if what in _said:
        return
    _said.add(what)
    say(f"probes: {what}: about {spoken(seconds)}{note and f' ({note})'}", file=sys.stderr)
