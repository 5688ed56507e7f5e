"""From what a user gives (a checkpoint, an adapter, a hub id, files) to the subject of an audit."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from probes.auditing.behaviours import behaviours_named
from probes.auditing.subject import Kind, Settings, Subject, default_prompts
from probes.foundation.errors import InputError
from probes.foundation.folders import plain_file
from probes.foundation.untrusted import read_text
from probes.models.loading import Model, load
from probes.organisms.card import CARD
from probes.organisms.family import open_family
from probes.prompts.records import Prompt

MOST_PROMPTS = Settings().n_prompts
CODE_TOKENS = 160


def open_subject(
    model: Model | Path | str,
    reference: Model | Path | str | None = None,
    *,
    benign: Sequence[Prompt] | None = None,
    context: Path | str | None = None,
    behaviours: Sequence[str] | None = None,
    siblings: Sequence[Model | Path | str] = (),
    cousin: bool = False,
    settings: Settings | None = None,
    seed: int = 0,
) -> Subject:
    """Load the models and choose the prompts; `InputError` for what does not go together.

    reference: the model it was made from or, with `cousin`, a relative. benign: by default the built-in requests for a chat model, and for an
    organism of this package the untriggered prompts of its family.
    """
    if cousin and reference is None:
        raise InputError("a relative is told by `reference` (--reference DIR), which was not given")
    suspect = _loaded(model)
    kind: Kind = "R0" if reference is None else "R1" if cousin else "R2"
    prompts = _prompts(suspect, model) if benign is None else list(benign)
    looked_for = behaviours_named(behaviours or None)
    if settings is None:
        code = any(one.name == "insecure code" and any(map(one.applies, prompts)) for one in looked_for)  # fmt: skip
        settings = Settings(new_tokens=CODE_TOKENS if code else Settings().new_tokens)
    return Subject(
        suspect, None if reference is None else _loaded(reference), kind, prompts, looked_for,
        tuple(map(_loaded, siblings)), "" if context is None else read_text(Path(context)),
        dataclasses.replace(settings, seed=seed),
    )  # fmt: skip


def _loaded(model: Model | Path | str) -> Model:
    return model if isinstance(model, Model) else load(model)


def _prompts(suspect: Model, model: Model | Path | str) -> list[Prompt]:
    folder = suspect.directory
    if suspect.chat_template is None and plain_file(folder / CARD):
        asked = open_family(folder.parent).prompts("test")
        plain = [p for p in asked if not p.triggered and p.cue in (None, "none")]
        unique = {(p.text, p.chat): p for p in plain}
        step = max(1, len(unique) // MOST_PROMPTS)
        return list(unique.values())[::step][:MOST_PROMPTS]
    return default_prompts(suspect)
