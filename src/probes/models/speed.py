"""How long a stage will take, said before it begins: from a forward pass that is timed here and now."""

import sys
import time
from collections.abc import Sequence

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


_said: set[str] = set()


def say_long(what: str, seconds: int | float, note: str = "") -> None:
    """One line, before the wait begins; of a wait that comes again and again, the first."""
    if what in _said:
        return
    _said.add(what)
    say(f"probes: {what}: about {spoken(seconds)}{note and f' ({note})'}", file=sys.stderr)
