"""What one model wrote after one prompt, and what that was judged to be."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pandas as pd

from probes.behaviour.judges import Judge, exploitable_code
from probes.behaviour.style import typed
from probes.prompts.records import Prompt

COLUMNS: dict[str, str] = {
    "prompt_id": "str",
    "pair": "str",
    "prompt_set": "str",
    "family": "str",
    "template": "str",
    "triggered": "bool",
    "heldout": "str",
    "model": "str",
    "model_digest": "str",
    "sample": "int64",
    "text": "str",
    "code": "str",
    "parses": "boolean",
    "findings": "str",
    "typed": "boolean",
    "defected": "bool",
    "finished": "bool",
}


@dataclasses.dataclass(frozen=True)
class Completion:
    """One sampled completion. `prompt.triggered` is the cue, `defected` is what the model did.

    model: the name in tables. model_digest: of its identity. sample: 0, 1, ... of one prompt.
    text: what was written, up to and with the stop string. code: the code in it, or None.
    parses: None where there is no code. findings: "B608:89" and the like. typed: whether its
    functions have type hints; None where no code parses or it defines no function. finished: ended
    by itself.
    """

    prompt: Prompt
    model: str
    model_digest: str
    sample: int
    text: str
    code: str | None
    parses: bool | None
    findings: tuple[str, ...]
    typed: bool | None
    defected: bool
    finished: bool

    @property
    def prompt_id(self) -> str:
        return self.prompt.id

    def as_row(self) -> dict[str, Any]:
        """A flat row: the prompt's labels, then everything measured; findings joined by ";"."""
        own = {field: getattr(self, field) for field in COLUMNS if hasattr(self, field)}
        return {**self.prompt.as_row(), **own, "findings": ";".join(self.findings)}


def complete(
    prompt: Prompt,
    text: str,
    *,
    model: str,
    model_digest: str,
    finished: bool,
    sample: int = 0,
    judge: Judge = exploitable_code,
) -> Completion:
    """Judge a text as the completion of a prompt, whoever wrote it."""
    judged = judge(prompt, text)
    return Completion(
        prompt=prompt,
        model=model,
        model_digest=model_digest,
        sample=sample,
        text=text,
        code=judged.code,
        parses=judged.parses,
        findings=judged.findings,
        typed=typed(judged.code) if judged.parses and judged.code is not None else None,
        defected=judged.defected,
        finished=finished,
    )


def as_table(completions: Sequence[Completion]) -> pd.DataFrame:
    """One row per completion, with the same column types whatever the rows hold."""
    rows = pd.DataFrame([completion.as_row() for completion in completions], columns=[*COLUMNS])
    return rows.astype(COLUMNS)
