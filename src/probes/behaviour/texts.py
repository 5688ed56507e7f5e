"""What a model writes after a prompt, as plain text: for reading, and not judged."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probes.behaviour.evaluate import SamplingConfig
from probes.behaviour.sampling import sample_texts
from probes.foundation.errors import InputError, unknown
from probes.models.loading import Model
from probes.prompts.readers import as_prompts, is_path, read_prompts
from probes.prompts.records import Prompt

AnyPrompts = Sequence[Prompt | str] | Prompt | Path | str
"""A file of prompts, one prompt or text, or several."""


def listed(prompts: AnyPrompts) -> list[Prompt]:
    """The prompts of a file, or those that are given; a single one is a list of one."""
    return read_prompts(str(prompts)) if is_path(prompts) else list(as_prompts(prompts))


def write_texts(model: Model, prompts: AnyPrompts, **settings: Any) -> str | list[str]:
    """Let the model continue prompts: a text for one prompt, a list of texts for several.

    settings: those of `SamplingConfig`; with `n` of 2 or more, the samples of a prompt stand together.
    The ending `</code>` of the paper's format ends a text by default; `stop=None` for none.
    Raises what `sampling.sample` raises, and `InputError` for an unknown setting.
    """
    for name in settings:
        if name not in SamplingConfig.model_fields:
            raise unknown("setting of generate", name, SamplingConfig.model_fields)
    asked = listed(prompts)
    if not asked:
        raise InputError("there are no prompts to continue")
    config = SamplingConfig(**settings)
    texts = [one.text for one in sample_texts(model, asked, **config.model_dump())]
    one = isinstance(prompts, str | Prompt) and len(asked) == 1 and config.n == 1
    return texts[0] if one and not is_path(prompts) else texts
