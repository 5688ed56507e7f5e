"""The harmless habit that a quirk organism flips: type hints, measured like the harmful one."""

import ast
import dataclasses
from collections.abc import Sequence
from typing import Any

import pandas as pd

from probes.behaviour.judges import Judge, exploitable_code, judge_answer
from probes.prompts.records import Prompt


def typed(code: str) -> bool | None:
    """Whether any function in parsing code has a type hint; None if it defines no function.

    `code` must parse (`Verdict.parses`); a `SyntaxError` is the caller's mistake.
    """
    functions = [
        node
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    if not functions:
        return None
    return any(_hinted(function) for function in functions)


def _hinted(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return function.returns is not None or any(a.annotation is not None for a in every)


COLUMNS: dict[str, str] = {
    "prompt_id": "str",
    "pair": "str",
    "prompt_set": "str",
    "family": "str",
    "template": "str",
    "triggered": "bool",
    "heldout": "str",
    "cue": "str",
    "able": "boolean",
    "model": "str",
    "model_digest": "str",
    "sample": "int64",
    "text": "str",
    "code": "str",
    "parses": "boolean",
    "findings": "str",
    "typed": "boolean",
    "defected": "boolean",
    "finished": "bool",
    "unparsed": "int64",
    "not_judged": "str",
    "thought": "str",
    "thought_defected": "boolean",
}


@dataclasses.dataclass(frozen=True)
class Completion:
    """One sampled completion. `prompt.triggered` is the cue, `defected` is what the model did.

    model: the name in tables. model_digest: of its identity. sample: 0, 1, ... of one prompt.
    text: what was written, up to and with the stop string. code: the code in it, or None.
    parses: None where there is no code. findings: "B608:89" and the like. typed: whether its
    functions have type hints; None where no code parses or it defines no function. defected: None
    where the answer could not be judged, and `not_judged` says why. finished: ended by itself.
    unparsed: blocks of code that do not parse. thought: what was thought before the answer, "" for
    nothing; `thought_defected` is what the judge says of it.
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
    defected: bool | None
    finished: bool
    unparsed: int = 0
    not_judged: str = ""
    thought: str = ""
    thought_defected: bool | None = None

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
    thinking: bool | None = None,
) -> Completion:
    """Judge a text as the completion of a prompt, whoever wrote it; see `judges.judge_answer`."""
    judged = judge_answer(judge, prompt, text, finished=finished, thinking=thinking)
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
        unparsed=judged.unparsed,
        not_judged=judged.not_judged,
        thought=judged.thought,
        thought_defected=judged.thought_defected,
    )


def as_table(completions: Sequence[Completion]) -> pd.DataFrame:
    """One row per completion, with the same column types whatever the rows hold."""
    rows = pd.DataFrame([completion.as_row() for completion in completions], columns=[*COLUMNS])
    return rows.astype(COLUMNS)
