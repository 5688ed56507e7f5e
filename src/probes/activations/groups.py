"""Sequences into groups, the units of work, of loss and of repair; and into batches to run."""

from collections.abc import Iterator, Sequence

import numpy as np

# What a further forward pass costs beside its tokens, in tokens: launching every layer and reading
# every weight once more. Chosen on a CPU with models of 1 to 30 million parameters; that of a GPU,
# where the weights alone are worth hundreds of tokens, is a guess.
OVERHEAD_TOKENS = {"cpu": 32, "cuda": 1024}


def grouping_order(lengths: np.ndarray, one_each: bool) -> np.ndarray:
    """The order in which sequences are put into groups.

    With one row each, the order in which they were asked for: a group's rows are then read in one
    piece, and as they are small, a group holds so many sequences that like lengths meet in it. With
    a row per token, by descending length: groups are smaller, and a sequence is read in one piece.
    """
    return np.arange(len(lengths)) if one_each else np.argsort(-lengths, kind="stable")


def groups(
    lengths: np.ndarray, n_rows: np.ndarray, one_each: bool, max_tokens: int, max_rows: int
) -> Iterator[np.ndarray]:
    """Indices of sequences, cut where a group would pass either limit.

    The same lengths always give the same groups. A sequence larger than a limit is a group alone.
    """
    order = grouping_order(lengths, one_each)
    tokens = np.concatenate([[0], lengths[order].cumsum()])
    rows = np.concatenate([[0], n_rows[order].cumsum()])
    start = 0
    while start < len(order):
        fitting = min(
            np.searchsorted(tokens, tokens[start] + max_tokens, side="right"),
            np.searchsorted(rows, rows[start] + max_rows, side="right"),
        )
        stop = max(start + 1, int(fitting) - 1)
        yield order[start:stop]
        start = stop


def batches(lengths: Sequence[int], budget: int, overhead: int) -> list[slice]:
    """Sequences in descending length into batches with little padding, as slices of them.

    A batch holds at most `budget` tokens with its padding (a longer sequence is a batch alone), and
    ends where its padding would outgrow `overhead`, the cost of a further batch.
    """
    found: list[slice] = []
    start, padding = 0, 0
    for index, length in enumerate(lengths):
        wider = padding + lengths[start] - length
        if index > start and (
            (index + 1 - start) * lengths[start] > budget or wider > max(overhead, 0)
        ):
            found.append(slice(start, index))
            start, wider = index, 0
        padding = wider
    if len(lengths):
        found.append(slice(start, len(lengths)))
    return found
