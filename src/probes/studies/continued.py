"""What a model wrote, put behind the prompts that it wrote it after: sequences to collect from."""

from collections.abc import Iterable
from pathlib import Path

from probes.activations.sequences import stream
from probes.behaviour.evaluate import Behaviour
from probes.behaviour.evaluate import read as read_behaviour
from probes.foundation.errors import InputError
from probes.prompts.records import Prompt


def continued(
    prompts: Iterable[Prompt | str] | Prompt | Path | str, behaviour: Behaviour | Path | str
) -> tuple[list[Prompt], list[str]]:
    """Each prompt with each of its completions: prompts (repeated) and texts, side by side.

    Raises `InputError` for a prompt without a completion, and where two samples of one prompt are
    the same text, each of which would be the same sequence: these are given once.
    """
    found = behaviour if isinstance(behaviour, Behaviour) else read_behaviour(behaviour)
    texts: dict[str, list[str]] = {}
    for prompt_id, text in found.completions[["prompt_id", "text"]].itertuples(index=False):
        written = texts.setdefault(prompt_id, [])
        if text not in written:
            written.append(text)
    asked = list(stream(prompts))
    without = [number for number, prompt in enumerate(asked) if prompt.id not in texts]
    if without:
        raise InputError(
            f"{len(without)} of {len(asked)} prompts have no completion in this behaviour; the first "
            f"is prompt {without[0]} (pair {asked[without[0]].pair!r}). Evaluate the same file first."
        )
    pairs = [(prompt, text) for prompt in asked for text in texts[prompt.id]]
    return [prompt for prompt, _ in pairs], [text for _, text in pairs]
