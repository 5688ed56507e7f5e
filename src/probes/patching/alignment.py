"""Which token of one version of a prompt stands for which of the other, where their lengths differ.

A cue that one version has and the other lacks, such as a tag, shifts all that follows. Tokens that both
versions have are matched in order; what only one of them has has no counterpart and is never patched.
"""

import difflib
from collections.abc import Sequence

Matches = tuple[tuple[int, int], ...]


def match_tokens(clean: Sequence[int], corrupted: Sequence[int]) -> Matches:
    """Positions (in clean, in corrupted) that stand for one another, from left to right.

    The common beginning and the common end are matched first; between them the longest runs of equal
    tokens (Ratcliff and Obershelp, as in Python's `difflib`), and what was replaced by as many tokens
    as it had, one by one. So versions of equal length that differ in one token are matched position
    by position.
    """
    shortest = min(len(clean), len(corrupted))
    start = next((i for i in range(shortest) if clean[i] != corrupted[i]), shortest)
    back = next(
        (i for i in range(shortest - start) if clean[-1 - i] != corrupted[-1 - i]),
        shortest - start,
    )
    found = [(i, i) for i in range(start)]
    middles = clean[start : len(clean) - back], corrupted[start : len(corrupted) - back]
    steps = difflib.SequenceMatcher(None, *middles, autojunk=False).get_opcodes()
    for step, a, a_end, b, b_end in steps:
        if step == "equal" or (step == "replace" and a_end - a == b_end - b):
            found += [(start + a + i, start + b + i) for i in range(a_end - a)]
    found += [(len(clean) - i, len(corrupted) - i) for i in range(back, 0, -1)]
    return tuple(found)


def shown(ids: Sequence[str], matched: Sequence[int], around: int, width: int = 5) -> str:
    """Tokens near a position, those without a counterpart in brackets."""
    first, last = max(around - width, 0), around + width + 2
    have = set(matched)
    cells = [t if i in have else f"[{t}]" for i, t in enumerate(ids)][first:last]
    return f"{'... ' if first else ''}{' | '.join(cells)}{' ...' if last < len(ids) else ''}"
