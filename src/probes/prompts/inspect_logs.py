"""Logs of Inspect (the package inspect_ai): samples as prompts, and scores written beside its own.

Inspect is optional: `pip install 'probes[inspect]'`. Its own functions read and write the logs, so
that every version of the format that it knows is known here.
"""

import dataclasses
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from probes.foundation.errors import InputError
from probes.foundation.untrusted import MAX_BYTES, check_file, parse_json, read_text
from probes.prompts.records import Prompt

LABELS = ("pair", "triggered", "family", "prompt_set", "template", "safe", "defect", "defected")
"""What a sample's metadata may say of its prompt."""
UNREAD = {"events", "store", "timelines"}


@dataclasses.dataclass(frozen=True)
class Sample:
    """One sample of a log, in one epoch.

    prompt: what stood before the last answer. completion: that answer; "" for none. finished: whether
    it ended by itself. scores: values by the scorer's name. model: as Inspect names it.
    """

    id: str | int
    epoch: int
    prompt: Prompt
    completion: str
    finished: bool
    scores: Mapping[str, Any]
    model: str


def inspect_ai() -> Any:
    """The package, or one line on how to get it."""
    try:
        import inspect_ai.log
    except ImportError as error:
        raise InputError(
            "logs of Inspect need the package inspect_ai: pip install 'probes[inspect]'"
        ) from error
    return inspect_ai


def is_log(path: Path) -> bool:
    """Whether a file is a log of Inspect: by its name, or by what the JSON in it holds."""
    if path.suffix == ".eval":
        return True
    try:
        found = parse_json(read_text(path), str(path), finite=False)
    except InputError:
        return False  # JSON Lines, or a broken file, which its reader names
    return isinstance(found, dict) and {"eval", "samples"} <= found.keys()


def read_samples(path: Path | str) -> list[Sample]:
    """The samples of a log, in its order.

    The prompt is the chat before the last answer, system messages of the task included; its labels are
    those of `LABELS` that are in the sample's metadata. Raises `InputError` for what is no log, and for
    messages that are not text.
    """
    log = _read(Path(path), UNREAD)
    return [_sample(each, log.eval.model) for each in log.samples or []]


def log_prompts(path: Path | str) -> list[Prompt]:
    """The prompts of a log, each once, however many epochs it was sampled in."""
    return list(dict.fromkeys(sample.prompt for sample in read_samples(path)))


def prompt_of(messages: Sequence[Any], metadata: Mapping[str, Any]) -> Prompt:
    """A prompt of messages as Inspect has them. Raises `InputError` for one that is not text."""
    from probes.prompts.readers import as_prompts

    chat = [{"role": each.role, "content": _text(each)} for each in messages]
    labels = {key: metadata[key] for key in LABELS if metadata.get(key) is not None}
    (prompt,) = as_prompts({"messages": chat, **labels})
    return prompt


def write_scores(
    path: Path | str,
    out: Path | str,
    values: Sequence[float | bool | str],
    *,
    name: str,
    notes: Sequence[str] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """A copy of a log in which every sample has one more score, which `inspect view` shows.

    values: in the order of `read_samples`. name: of the scorer. notes: an explanation each. facts: what
    made the scores, kept as the scorer's parameters. out: ends in .eval or .json.
    Raises `InputError` where the numbers differ, and where the log has a scorer of this name.
    """
    out = Path(out)
    if out.suffix not in (".eval", ".json"):
        raise InputError(f"a log ends in .eval or .json; saw {out.name}")
    if out.exists():
        raise InputError(f"{out} exists: give another file for the log with the new scores")
    log = _read(Path(path))
    samples = log.samples or []
    if len(samples) != len(values):
        raise InputError(f"{len(samples)} samples and {len(values)} scores: give one per sample")
    if any(name in (sample.scores or {}) for sample in samples):
        raise InputError(f"the log has scores of {name!r} already: give another name")
    inspect_ai()
    from inspect_ai.log import EvalMetric, EvalResults, EvalScore, write_eval_log
    from inspect_ai.scorer import Score

    for number, (sample, value) in enumerate(zip(samples, values, strict=True)):
        score = Score(value=value, explanation=notes[number] if notes else None)
        sample.scores = {**(sample.scores or {}), name: score}
    numbers = [float(value) for value in values if not isinstance(value, str)]
    mean = {"mean": EvalMetric(name="mean", value=sum(numbers) / len(numbers))} if numbers else {}
    results = log.results or EvalResults(total_samples=len(samples), completed_samples=len(samples))
    own = EvalScore(
        name=name, scorer=name, scored_samples=len(values), unscored_samples=0,
        params=dict(facts or {}), metrics=mean,
    )  # fmt: skip
    results.scores = [*results.scores, own]
    log.results = results
    out.parent.mkdir(parents=True, exist_ok=True)
    write_eval_log(log, str(out))
    return out


def _read(path: Path, without: set[str] | None = None) -> Any:
    """The log as Inspect reads it, if it is within the limits of untrusted files."""
    package = inspect_ai()
    try:
        size = check_file(path)
        if path.suffix == ".eval":
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_BYTES:
            raise InputError(
                f"{path} has {size:,} bytes when unpacked; at most {MAX_BYTES:,} are read"
            )
        return package.log.read_eval_log(path, resolve_attachments=True, exclude_fields=without)
    except InputError:
        raise
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        why = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is no log of Inspect that can be read: {why}") from error


def _sample(sample: Any, model: str) -> Sample:
    completion = sample.output.completion
    messages = list(sample.messages)
    if messages and messages[-1].role == "assistant":
        messages = messages[:-1]
    elif isinstance(sample.input, str):
        from inspect_ai.model import ChatMessageUser

        messages = [ChatMessageUser(content=sample.input)]
    else:
        messages = list(sample.input)
    try:
        prompt = prompt_of(messages, sample.metadata)
    except InputError as error:
        raise InputError(f"sample {sample.id}: {error}") from error
    scores = {name: score.value for name, score in (sample.scores or {}).items()}
    finished = sample.output.stop_reason not in ("max_tokens", "model_length")
    return Sample(sample.id, sample.epoch, prompt, completion, finished, scores, model)


def _text(message: Any) -> str:
    content = message.content
    if isinstance(content, str):
        return content
    kinds = {part.type for part in content}
    if not kinds <= {"text", "reasoning"}:
        raise InputError(f"a message holds {', '.join(sorted(kinds))}; only text can be read")
    return str(message.text)
