"""Prompts from bare strings, for work that needs no pairs and no families."""

from collections.abc import Sequence

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
