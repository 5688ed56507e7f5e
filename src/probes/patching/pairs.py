"""What is patched into what: the triggered and the untriggered run of a prompt, token by token."""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from probes.foundation.digest import digest_json
from probes.foundation.errors import InputError
from probes.models.encoding import encode, encode_texts
from probes.patching.labels import visible
from probes.prompts.records import Prompt

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
    """Token ids of one `PatchPair`; `clean` and `corrupted` are aligned position by position."""

    name: str
    clean: tuple[int, ...]
    corrupted: tuple[int, ...]
    safe: tuple[int, ...]
    defect: tuple[int, ...]

    @property
    def n_prompt(self) -> int:
        return len(self.clean)


def make_pairs(prompts: Sequence[Prompt]) -> list[PatchPair]:
    """Pairs in the order of their first prompt, from prompts that share a `pair` id.

    Raises `InputError` for no prompts, a pair that is not one triggered and one untriggered prompt,
    or one without two different reference completions that both its prompts agree on.
    """
    if not prompts:
        raise InputError("patching was given no prompts")
    members: dict[str, list[Prompt]] = defaultdict(list)
    for prompt in prompts:
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
    """Tokenise prompts and continuations separately; patching needs both prompts equally long.

    Raises `InputError` showing both tokenisations where the lengths differ, and for prompts that
    are the same to the model.
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
        if len(clean[i]) != len(corrupted[i]):
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
                name, tuple(clean[i]), tuple(corrupted[i]), tuple(safe[i]), tuple(defect[i])
            )
        )
    return encoded


def digest_pairs(encoded: Sequence[EncodedPair]) -> str:
    """sha256 over names and token ids in order."""
    return digest_json([dataclasses.asdict(pair) for pair in encoded])


def _continuation(name: str, group: Sequence[Prompt], which: str) -> str:
    texts = {getattr(prompt, which) for prompt in group} - {None}
    if len(texts) != 1:
        seen = "none is given" if not texts else "its prompts give different ones"
        raise InputError(f"pair {name!r} needs one `{which}` continuation for both prompts: {seen}")
    return str(texts.pop())


def _unequal(name: str, clean: list[int], corrupted: list[int], tokenizer: Any) -> str:
    first = next(
        (i for i, (a, b) in enumerate(zip(clean, corrupted, strict=False)) if a != b),
        min(len(clean), len(corrupted)),
    )

    def window(ids: list[int]) -> str:
        start, stop = max(first - 4, 0), first + 6
        shown = " | ".join(visible(token, tokenizer) for token in ids[start:stop])
        return f"{'... ' if start else ''}{shown}{' ...' if stop < len(ids) else ''}"

    return (
        f"pair {name!r}: the prompt with the trigger has {len(clean)} tokens, the one without "
        f"{len(corrupted)}; patching needs the same number, so that positions correspond.\n"
        f"  with:    {window(clean)}\n  without: {window(corrupted)}\n"
        "Choose a wording without the trigger that this tokenizer splits into as many tokens, or "
        "leave the pair out."
    )


def _list(broken: dict[str, str]) -> str:
    shown = [f"pair {name!r} has {what}" for name, what in list(broken.items())[:SHOWN]]
    more = len(broken) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")
