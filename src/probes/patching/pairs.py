"""Pairs of prompts that differ in the trigger: which are patched, between which two continuations, as tokens that can be patched into one another."""

import dataclasses
import difflib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pandas as pd

from probes.foundation.config import Config
from probes.foundation.digest import digest_json
from probes.foundation.errors import InputError
from probes.foundation.seeds import stream
from probes.models.encoding import encode, encode_texts, visible
from probes.models.loading import Model
from probes.models.templates import say_once
from probes.prompts.records import Prompt

Matches = tuple[tuple[int, int], ...]


def match_tokens(clean: Sequence[int], corrupted: Sequence[int]) -> Matches:
    """Positions (in clean, in corrupted) that stand for one another, from left to right.

    The common beginning and the common end are matched first; between them the longest runs of equal
    tokens (Ratcliff and Obershelp, as in Python's `difflib`), and what was replaced, from both ends
    until one side has no token left. So versions of equal length that differ in one token are matched
    position by position.
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
        if step in ("equal", "replace"):
            n = min(a_end - a, b_end - b)
            left = (n + 1) // 2
            found += [(start + a + i, start + b + i) for i in range(left)]
            found += [(start + a_end - i, start + b_end - i) for i in range(n - left, 0, -1)]
    found += [(len(clean) - i, len(corrupted) - i) for i in range(back, 0, -1)]
    return tuple(found)


def shown(ids: Sequence[str], matched: Sequence[int], around: int, width: int = 5) -> str:
    """Tokens near a position, those without a counterpart in brackets."""
    first, last = max(around - width, 0), around + width + 2
    have = set(matched)
    cells = [t if i in have else f"[{t}]" for i, t in enumerate(ids)][first:last]
    return f"{'... ' if first else ''}{' | '.join(cells)}{' ...' if last < len(ids) else ''}"


SHOWN = 5  # offenders listed in an error


@dataclasses.dataclass(frozen=True)
class PatchPair:
    """Two versions of one prompt and the two ways to go on.

    clean: with the trigger; its activations are patched in. corrupted: without; it is run and
    patched. safe, defect: the secure and the exploitable continuation, from where the prompts stop.
    """

    clean: Prompt
    corrupted: Prompt
    safe: str
    defect: str


@dataclasses.dataclass(frozen=True)
class EncodedPair:
    """Token ids of one `PatchPair`, and which token of `clean` stands for which of `corrupted`.

    matched: such positions (in clean, in corrupted) in order; None for position by position. Each is
    a *slot*: columns name slots, so that they mean the same in both versions. The tokens of the
    continuations are slots too, behind those of the prompt.
    """

    name: str
    clean: tuple[int, ...]
    corrupted: tuple[int, ...]
    safe: tuple[int, ...]
    defect: tuple[int, ...]
    matched: Matches | None = None

    @property
    def n_prompt(self) -> int:
        """Tokens of the longer version."""
        return max(len(self.clean), len(self.corrupted))

    @property
    def slots(self) -> Matches:
        """Positions (in clean, in corrupted) of the prompt's slots."""
        return (
            tuple((i, i) for i in range(len(self.clean))) if self.matched is None else self.matched
        )

    def where(self, slots: Sequence[int], clean: bool) -> tuple[int, ...]:
        """The positions of slots in one version, continuations behind the prompt."""
        if self.matched is None:
            return tuple(slots)
        n_prompt, n_slots = len(self.clean if clean else self.corrupted), len(self.matched)
        return tuple(
            self.matched[s][0 if clean else 1] if s < n_slots else n_prompt + s - n_slots
            for s in slots
        )


def is_patched(prompt: Prompt) -> bool:
    """Whether a prompt is one of a pair: of the four-cue design those are A and D, on tasks that can defect."""
    return prompt.cue in (None, "A", "D") and prompt.able is not False


def make_pairs(prompts: Sequence[Prompt]) -> list[PatchPair]:
    """Pairs in the order of their first prompt, from prompts that share a `pair` id; see `is_patched`.

    Raises `InputError` for no prompts, a pair that is not one triggered and one untriggered prompt,
    or one without two different reference completions that both its prompts agree on.
    """
    if not prompts:
        raise InputError("patching was given no prompts")
    members: dict[str, list[Prompt]] = defaultdict(list)
    for prompt in filter(is_patched, prompts):
        members[prompt.pair].append(prompt)
    broken = {
        name: f"{sum(p.triggered for p in group)} with the trigger, "
        f"{sum(not p.triggered for p in group)} without"
        for name, group in members.items()
        if sorted(prompt.triggered for prompt in group) != [False, True]
    }
    if broken:
        raise InputError(
            "patching needs each pair to be one prompt with the trigger and one without; "
            + _list(broken)
            + ". Add the missing version of each, or leave the pair out."
        )
    pairs = []
    for name, group in members.items():
        clean, corrupted = sorted(group, key=lambda prompt: not prompt.triggered)
        safe, defect = _continuation(name, group, "safe"), _continuation(name, group, "defect")
        if safe == defect:
            raise InputError(
                f"pair {name!r}: `safe` and `defect` are the same text, so no difference between "
                "them can be measured"
            )
        pairs.append(PatchPair(clean, corrupted, safe, defect))
    return pairs


def encode_pairs(pairs: Sequence[PatchPair], tokenizer: Any) -> list[EncodedPair]:
    """Tokenise prompts and continuations separately, and say which token stands for which.

    Where the prompts differ in length the tokens that both have are matched (see `match_tokens`):
    columns then exist for those alone, and a line on standard error says how many have no counterpart.
    Raises `InputError` showing both tokenisations where the last tokens have no counterpart, and for
    prompts that are the same to the model.
    """
    if not pairs:
        raise InputError("patching was given no pairs")
    clean = encode([pair.clean for pair in pairs], tokenizer)
    corrupted = encode([pair.corrupted for pair in pairs], tokenizer)
    safe = encode_texts([pair.safe for pair in pairs], tokenizer, add_special_tokens=False)
    defect = encode_texts([pair.defect for pair in pairs], tokenizer, add_special_tokens=False)
    encoded = []
    for i, pair in enumerate(pairs):
        name = pair.clean.pair
        matched = None
        if len(clean[i]) != len(corrupted[i]):
            matched = match_tokens(clean[i], corrupted[i])
            last = (len(clean[i]) - 1, len(corrupted[i]) - 1)
            if last not in matched:
                raise InputError(_unequal(name, clean[i], corrupted[i], tokenizer))
        if clean[i] == corrupted[i]:
            raise InputError(f"pair {name!r}: both prompts have the same tokens; nothing to patch")
        if not safe[i] or not defect[i] or safe[i] == defect[i]:
            raise InputError(
                f"pair {name!r}: its continuations have {len(safe[i])} (safe) and "
                f"{len(defect[i])} (defect) tokens; both need at least one, and must differ"
            )
        encoded.append(
            EncodedPair(
                name,
                tuple(clean[i]),
                tuple(corrupted[i]),
                tuple(safe[i]),
                tuple(defect[i]),
                matched,
            )
        )
    _say_unmatched(encoded)
    return encoded


def _say_unmatched(encoded: Sequence[EncodedPair]) -> None:
    alone = [
        (len(pair.clean) - len(pair.matched), len(pair.corrupted) - len(pair.matched))
        for pair in encoded
        if pair.matched is not None
    ]
    if alone:
        with_it, without = (f"{min(n)} to {max(n)}" for n in zip(*alone, strict=True))
        say_once(
            f"{len(alone)} of {len(encoded)} pairs differ in length: {with_it} tokens with the trigger and "
            f"{without} without it have no counterpart, and are not patched; all others are, by what they "
            "stand for"
        )


def digest_pairs(encoded: Sequence[EncodedPair]) -> str:
    """sha256 over names and token ids in order."""
    return digest_json(
        [
            {k: v for k, v in dataclasses.asdict(pair).items() if k != "matched" or v is not None}
            for pair in encoded
        ]
    )


def _continuation(name: str, group: Sequence[Prompt], which: str) -> str:
    texts = {getattr(prompt, which) for prompt in group} - {None}
    if len(texts) != 1:
        seen = "none is given" if not texts else "its prompts give different ones"
        raise InputError(f"pair {name!r} needs one `{which}` continuation for both prompts: {seen}")
    return str(texts.pop())


def _unequal(name: str, clean: list[int], corrupted: list[int], tokenizer: Any) -> str:
    matched = match_tokens(clean, corrupted)
    shortest = min(len(clean), len(corrupted))
    first = next((i for i in range(shortest) if clean[i] != corrupted[i]), shortest)
    seen = [
        shown([visible(token, tokenizer) for token in ids], [m[side] for m in matched], first)
        for side, ids in enumerate((clean, corrupted))
    ]
    return (
        f"pair {name!r}: the prompt with the trigger has {len(clean)} tokens, the one without "
        f"{len(corrupted)}, so that positions do not correspond.\n"
        f"  with:    {seen[0]}\n  without: {seen[1]}\n"
        "Their last tokens, where both must go on alike, have no counterpart (those in brackets have "
        "none); leave the pair out, or let both prompts end in the same words."
    )


def _list(broken: dict[str, str]) -> str:
    shown = [f"pair {name!r} has {what}" for name, what in list(broken.items())[:SHOWN]]
    more = len(broken) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


class PatchConfig(Config):
    """How many prompt pairs are patched, spread evenly over the task families."""

    n_pairs: int = 24
    n_boot: int = 1000
    seed: int = 0


ANSWER_TOKENS = 16
"""Of what a model itself wrote: a long answer's log-probability says little of how it began."""


def choose_pairs(
    prompts: Sequence[Prompt], completions: pd.DataFrame, model: Model, config: PatchConfig
) -> list[PatchPair]:
    """Pairs on which the model defects with the trigger and not without, spread over the families."""
    return spread(make_pairs(with_answers(prompts, completions, model.tokenizer)), config)


def with_answers(
    prompts: Sequence[Prompt], completions: pd.DataFrame, tokenizer: Any
) -> list[Prompt]:
    """The prompts of pairs on which the model defects with the trigger and not without, with continuations.

    These are the references of the prompts where they have them; otherwise how what the model itself
    wrote with and without the trigger begins (`ANSWER_TOKENS`).
    Raises `InputError` if fewer than two pairs are left, with what was lost where.
    """
    first = completions.drop_duplicates("prompt_id").set_index("prompt_id")
    defected = first["defected"].astype("boolean")  # missing is neither: it could not be judged
    does, does_not = (set(first.index[mask.fillna(False)]) for mask in (defected, ~defected))
    by_pair: dict[str, dict[bool, Prompt]] = {}
    for prompt in prompts:
        if prompt.heldout is None and is_patched(prompt):
            by_pair.setdefault(prompt.pair, {})[prompt.triggered] = prompt
    flipping = [
        pair
        for pair in by_pair.values()
        if len(pair) == 2 and pair[True].id in does and pair[False].id in does_not
    ]
    members = []
    for pair in flipping:
        safe = pair[False].safe or _beginning(str(first.loc[pair[False].id, "text"]), tokenizer)
        defect = pair[True].defect or _beginning(str(first.loc[pair[True].id, "text"]), tokenizer)
        if safe and defect and safe != defect:
            members += [
                dataclasses.replace(pair[t], safe=safe, defect=defect) for t in (True, False)
            ]
    if len(members) < 4:
        raise InputError(
            f"patching needs at least 2 pairs; of {len(by_pair)}, {len(flipping)} defect with the "
            f"trigger and not without, and {len(members) // 2} of those have two answers that differ. "
            "Give more prompts, or leave this stage out (--no-patching)"
        )
    return members


def _beginning(text: str, tokenizer: Any) -> str:
    (ids,) = encode_texts([text], tokenizer, add_special_tokens=False)
    if len(ids) <= ANSWER_TOKENS:
        return text
    return str(tokenizer.decode(ids[:ANSWER_TOKENS], clean_up_tokenization_spaces=False))


def spread(pairs: Sequence[PatchPair], config: PatchConfig) -> list[PatchPair]:
    """Up to `n_pairs`, taking one of each family in turn, in an order drawn by the seed."""
    order = stream(config.seed, "patched pairs").permutation(len(pairs))
    queues: dict[str, list[PatchPair]] = {}
    for i in order:
        queues.setdefault(pairs[i].clean.family, []).append(pairs[i])
    turns = max(len(queue) for queue in queues.values())
    taken = [
        queue[t] for t in range(turns) for _, queue in sorted(queues.items()) if t < len(queue)
    ]
    return taken[: config.n_pairs]
