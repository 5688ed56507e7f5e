"""The columns of a grid: positions that mean the same in every prompt, whatever their lengths.

Prompts of one format share how they begin and how they end. Each token of the shared beginning and
of the shared end is a column; what lies between is patched as a block, or as several named ones. The
parts of a chat have names of their own.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from probes.foundation.errors import InputError, unknown
from probes.foundation.patterns import Pattern
from probes.models.encoding import as_texts, chat_parts, offsets, visible
from probes.patching.pairs import EncodedPair, PatchPair

DIFFERS = -1  # stands for "the token in which the clean and the corrupted prompt differ"
MIDDLE = "…"
AUTO, SHARED, POSITION, NAMES = "auto", "shared", "position", "names"
ALIGNMENTS = (AUTO, SHARED, POSITION, NAMES)
CUE, LAST = "cue", "last"


@dataclasses.dataclass(frozen=True)
class Column:
    """One column: its label, and for each prompt the slots that are patched together.

    positions: slots as `EncodedPair` counts them, which are positions where both versions of a prompt
    are equally long. Those behind the prompt's are of the continuations, side by side.
    """

    label: str
    positions: tuple[tuple[int, ...], ...]


def make_columns(
    pairs: Sequence[PatchPair],
    encoded: Sequence[EncodedPair],
    tokenizer: Any,
    *,
    spans: Mapping[str, str] | None = None,
    alignment: str = AUTO,
) -> list[Column]:
    """Columns that together cover every prompt slot exactly once, from left to right.

    A slot is a token that both versions of a prompt have; see `encode_pairs`.

    spans: names and regular expressions; the middle is cut where each one first matches in the text
        of the prompt without the trigger, so that a span reaches to the start of the next. What
        precedes the first is the block "…", or part of the first span if a prompt has none of it.
    alignment: "shared" as described above; "position" for one column per position, which needs
        prompts of equal length; "names" for one column per part of a chat (see `encoding.chat_parts`),
        the tokens that the two versions have otherwise being the "cue", and the last one "last";
        "auto" for names where all prompts are chats and no span is given, else shared.
    Raises `InputError` for an unknown alignment, unequal lengths under "position", a span that does
    not match in the middle of each prompt, or spans in differing orders.
    """
    if alignment not in ALIGNMENTS:
        raise unknown("alignment", alignment, ALIGNMENTS)
    chats = all(prompt.chat for pair in pairs for prompt in (pair.clean, pair.corrupted))
    if alignment == NAMES or (alignment == AUTO and chats and not spans):
        if spans:
            raise InputError(f"spans {', '.join(spans)} and the names of a chat's parts: give one")
        return _named(pairs, encoded, tokenizer)
    keys = [
        [pair.clean[i] if pair.clean[i] == pair.corrupted[j] else DIFFERS for i, j in pair.slots]
        for pair in encoded
    ]
    lengths = [len(key) for key in keys]
    if alignment == POSITION:
        if len(set(lengths)) > 1:
            raise InputError(
                f"one column per position needs prompts of equal length; these have "
                f"{min(lengths)} to {max(lengths)} tokens. Use alignment='shared'."
            )
        n_prefix, n_suffix = lengths[0], 0
    else:
        n_prefix, n_suffix = _shared(keys)
    columns = [_single(encoded, [i] * len(encoded), tokenizer) for i in range(n_prefix)]
    if max(lengths) > n_prefix + n_suffix:
        middles = [range(n_prefix, length - n_suffix) for length in lengths]
        columns += _middle(pairs, encoded, middles, tokenizer, spans or {})
    elif spans:
        raise InputError(
            f"spans {', '.join(spans)} have no place: every token is a column of its own already"
        )
    for back in range(n_suffix, 0, -1):
        columns.append(_single(encoded, [length - back for length in lengths], tokenizer))
    return columns


def _named(
    pairs: Sequence[PatchPair], encoded: Sequence[EncodedPair], tokenizer: Any
) -> list[Column]:
    """A column per part that every pair has a slot in; a part that only some have joins what is before it."""
    parts = chat_parts([pair.clean for pair in pairs], tokenizer)
    labels = []
    for ids, known in zip(encoded, parts, strict=True):
        of_token = {i: name for name, span in known.items() for i in range(*span)}
        own = [
            of_token[i] if ids.clean[i] == ids.corrupted[j] else CUE for i, j in ids.slots
        ]  # fmt: skip
        labels.append([*own[:-1], LAST])
    everywhere = set.intersection(*map(set, labels))
    for own in labels:
        for i, label in enumerate(own):
            if label not in everywhere:
                own[i] = own[i - 1] if i else next(one for one in own if one in everywhere)
    order = [
        name for name in ("system", "history", CUE, "request", "header", LAST) if name in everywhere
    ]
    return [
        Column(name, tuple(tuple(i for i, one in enumerate(own) if one == name) for own in labels))
        for name in order
    ]


def _shared(keys: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Lengths of the common beginning and end; either all prompts have a middle or none has."""
    shortest, longest = min(map(len, keys)), max(map(len, keys))
    n_prefix = _agreeing(keys, shortest)
    n_suffix = _agreeing([key[::-1] for key in keys], shortest - n_prefix)
    if n_prefix + n_suffix == shortest < longest:  # else a prompt would have nothing to patch here
        n_prefix, n_suffix = (n_prefix, n_suffix - 1) if n_suffix else (n_prefix - 1, 0)
    return n_prefix, n_suffix


def _agreeing(keys: Sequence[Sequence[int]], limit: int) -> int:
    return next((i for i in range(limit) if len({key[i] for key in keys}) > 1), limit)


def _single(encoded: Sequence[EncodedPair], where: Sequence[int], tokenizer: Any) -> Column:
    """A column of one token per prompt; "3→4" where the prompts differ between their versions."""
    labels = set()
    for pair, i in zip(encoded, where, strict=True):
        there, here = pair.slots[i]
        clean, corrupted = (
            visible(pair.clean[there], tokenizer),
            visible(pair.corrupted[here], tokenizer),
        )
        labels.add(clean if clean == corrupted else f"{corrupted}→{clean}")
    label = labels.pop() if len(labels) == 1 else "·"
    return Column(label, tuple((i,) for i in where))


def _middle(
    pairs: Sequence[PatchPair],
    encoded: Sequence[EncodedPair],
    middles: Sequence[range],
    tokenizer: Any,
    spans: Mapping[str, str],
) -> list[Column]:
    if not spans:
        return [Column(MIDDLE, tuple(tuple(middle) for middle in middles))]
    starts = [
        _starts(pair, ids, middle, tokenizer, spans)
        for pair, ids, middle in zip(pairs, encoded, middles, strict=True)
    ]
    orders = {tuple(sorted(found, key=lambda name: found[name])) for found in starts}
    if len(orders) > 1:
        shown = " / ".join(", ".join(order) for order in sorted(orders))
        raise InputError(f"the spans stand in different orders in different prompts: {shown}")
    names = list(orders.pop())
    leading = all(
        found[names[0]] > middle[0] for found, middle in zip(starts, middles, strict=True)
    )
    blocks: dict[str, list[tuple[int, ...]]] = {name: [] for name in ([MIDDLE] * leading + names)}
    for found, middle in zip(starts, middles, strict=True):
        cuts = [middle[0], *(found[name] for name in names[0 if leading else 1 :]), middle[-1] + 1]
        for label, start, stop in zip(blocks, cuts, cuts[1:], strict=False):
            blocks[label].append(tuple(range(start, stop)))
    return [Column(label, tuple(positions)) for label, positions in blocks.items()]


def _starts(
    pair: PatchPair, ids: EncodedPair, middle: range, tokenizer: Any, spans: Mapping[str, str]
) -> dict[str, int]:
    """The first middle token of each span in one prompt."""
    prompt = pair.corrupted
    (places,), (text,) = offsets([prompt], tokenizer), as_texts([prompt], tokenizer)
    found: dict[str, int] = {}
    for name, pattern in spans.items():
        match = Pattern(pattern, f"span {name!r}").search(text)
        hits = [i for i in middle if match and _overlaps(places[ids.slots[i][1]], match.span())]
        if not hits or hits[0] in found.values():
            raise InputError(
                f"span {name!r} (regular expression {pattern!r}) "
                f"{'begins with the same token as another span' if hits else 'matches nothing'} "
                f"in the middle of pair {ids.name!r}, tokens {middle.start} to {middle.stop - 1}"
            )
        found[name] = hits[0]
    return found


def _overlaps(token: tuple[int, int], found: tuple[int, int]) -> bool:
    return token[0] < found[1] and found[0] < token[1]
