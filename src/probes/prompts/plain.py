"""Prompts from bare strings, for work that needs no pairs and no families."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from probes.foundation.digest import digest_bytes, short
from probes.foundation.errors import InputError
from probes.prompts.records import Prompt


def from_texts(
    texts: Sequence[str], triggered: Sequence[bool], *, prompt_set: str = "own"
) -> list[Prompt]:
    """One prompt per text, labelled; every text is its own pair and its own template.

    triggered: whether the trigger is in each text; the label that travels with its activations.
    Raises `InputError` where the numbers differ, and for a text that is empty or not a string.
    """
    if isinstance(texts, str):
        raise InputError("give a list of texts, not one text")
    if len(texts) != len(triggered):
        raise InputError(f"{len(texts)} texts and {len(triggered)} labels: give one label per text")
    for number, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"text {number} is not a text with content: {text!r}")
    names = [short(digest_bytes(text.encode())) for text in texts]
    return [
        Prompt(
            text=text,
            family=prompt_set,
            prompt_set=prompt_set,
            template=name,
            pair=name,
            triggered=bool(label),
        )
        for text, name, label in zip(texts, names, triggered, strict=True)
    ]


def is_path(given: Iterable[Prompt | str] | Prompt | Path | str) -> bool:
    """Whether this names a file: a path, or a word that exists, has a "/" or ends like a file's name."""
    if isinstance(given, Prompt) or not isinstance(given, Path | str):
        return False
    if isinstance(given, Path) or (not re.search(r"\s", given) and re.search(r"/|\.\w+$", given)):
        return True
    return len(given) < 256 and Path(given).exists()


def as_prompts(given: Iterable[Prompt | str] | Prompt | Path | str) -> Iterator[Prompt]:
    """Prompts one by one, texts among them as prompts without a trigger; a single one is one.

    Raises `InputError` for anything that is neither a prompt nor a text with content.
    """
    if isinstance(given, Prompt | str):
        given = [given]
    elif not isinstance(given, Iterable):
        raise InputError(
            f"prompts are a file, a text, or a list of prompts or texts; saw {type(given).__name__}"
        )
    for number, one in enumerate(given):
        if not isinstance(one, Prompt | str):
            raise InputError(
                f"prompt {number} is a {type(one).__name__}: give a `Prompt` or a text"
            )
        yield one if isinstance(one, Prompt) else from_texts([one], [False])[0]
