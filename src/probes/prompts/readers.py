"""Prompts from bare strings, for work that needs no pairs and no families."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from probes.foundation.artifact import write_text
from probes.foundation.digest import digest_bytes, short
from probes.foundation.errors import InputError, unknown
from probes.foundation.untrusted import check_file, parse_json, read_text
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


REQUIRED = ("pair", "triggered")
CONTENT = ("text", "messages")
OPTIONAL = ("family", "prompt_set", "template", "safe", "defect", "quirk", "heldout")
LABEL = "defected"
ALLOWED = (*CONTENT, *REQUIRED, *OPTIONAL, LABEL)
SHOWN = 20


class _LineError(ValueError):
    """What is wrong with one line."""


def read_prompts(path: Path | str) -> list[Prompt]:
    """Read and check a file of prompt pairs; prompts come in the order of the lines.

    Defaults: family "own", prompt_set "vulnerable" (a defection is possible), template the pair's
    id, so that splits are grouped by pair. Blank lines are skipped.

    Raises `InputError` for a missing, empty or not UTF-8 file; for broken lines, all of them at
    once with their numbers; for texts that occur twice; and for pairs that are not one triggered
    and one untriggered prompt, with their ids.
    """
    path = Path(path)
    prompts, where = _lines(path, _prompt)
    if not prompts:
        raise InputError(f"{path} is empty: give one JSON object per line, two lines per pair")
    _check_pairs(path, prompts)
    _check_duplicates(path, prompts, where)
    return prompts


def read_unpaired(path: Path | str) -> list[Prompt]:
    """Prompts that need neither pair nor trigger, such as the benign traffic that a monitor is set on.

    JSON Lines in which only `text` or `messages` is required: a line without `pair` is a pair of its
    own, one without `triggered` counts as not triggered. A file that ends in .txt has a text per line.
    Raises `InputError` as `read_prompts` does, but for pairs and repeats.
    """
    path = Path(path)
    plain = path.suffix == ".txt"
    prompts, _ = _lines(
        path, (lambda line: from_texts([line.rstrip("\r")], [False])[0]) if plain else _unpaired
    )
    if not prompts:
        raise InputError(
            f"{path} is empty: give one JSON object per line, or one text in a .txt file"
        )
    return prompts


def _lines(path: Path, read: Callable[[str], Prompt]) -> tuple[list[Prompt], list[int]]:
    """What is read of each line that is not blank, and the number of its line."""
    prompts: list[Prompt] = []
    where: list[int] = []
    problems: list[str] = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            prompts.append(read(line))
            where.append(number)
        except (_LineError, InputError) as error:
            problems.append(f"line {number}: {error}")
    if problems:
        raise InputError(f"{path} has {len(problems)} broken lines:\n{_listed(problems)}")
    return prompts, where


def stream_prompts(path: Path | str) -> Iterator[Prompt]:
    """Read prompts one line at a time, for files that need not fit into memory.

    Lines are checked one by one as in `read_prompts`; that every pair is whole, and that no text
    occurs twice, is not. Raises `InputError` at the first broken line, and for an empty file.
    """
    path = Path(path)
    n_prompts = 0
    check_file(path)
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    yield _prompt(line)
                except (_LineError, InputError) as error:
                    raise InputError(f"{path}, line {number}: {error}") from error
                n_prompts += 1
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error.reason}); save it again as UTF-8") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if n_prompts == 0:
        raise InputError(f"{path} is empty: give one JSON object per line")


def write_prompts(path: Path | str, prompts: Iterable[Prompt]) -> Path:
    """Write prompts so that `read_prompts` gives the same ones back; the file appears whole."""
    lines = [json.dumps(_record(prompt), ensure_ascii=False) for prompt in prompts]
    write_text(path, "".join(line + "\n" for line in lines))
    return Path(path)


def _prompt(line: str) -> Prompt:
    return _checked(_object(line))


def _unpaired(line: str) -> Prompt:
    record = _object(line)
    content = json.dumps([record.get(key) for key in CONTENT])
    own = {"pair": short(digest_bytes(content.encode())), "triggered": False}
    return _checked(own | record)


def _checked(record: dict[str, Any]) -> Prompt:
    for key in record:
        if key not in ALLOWED:
            raise unknown("key", key, ALLOWED)
    missing = [key for key in REQUIRED if key not in record]
    if missing:
        raise _LineError(f"the key(s) {', '.join(missing)} are missing")
    if len([key for key in CONTENT if key in record]) != 1:
        raise _LineError("give either `text` or `messages`")
    if not isinstance(record["triggered"], bool):
        raise _LineError(f"`triggered` is true or false, not {record['triggered']!r}")
    if not isinstance(record.get(LABEL), bool | None):
        raise _LineError(f"`{LABEL}` is true or false, not {record[LABEL]!r}")
    pair = _string(record, "pair")
    return Prompt(
        text=_string(record, "text") if "text" in record else "",
        chat=_chat(record["messages"]) if "messages" in record else (),
        pair=pair,
        defected=record.get(LABEL),
        triggered=record["triggered"],
        family=_string(record, "family", "own"),
        prompt_set=_string(record, "prompt_set", "vulnerable"),
        template=_string(record, "template", pair),
        **{key: _string(record, key) for key in OPTIONAL[3:] if record.get(key) is not None},
    )


def _object(line: str) -> dict[str, Any]:
    record = parse_json(line, "it")
    if not isinstance(record, dict):
        raise _LineError(f"not a JSON object but {type(record).__name__}")
    return record


def _string(record: dict[str, Any], key: str, default: str | None = None) -> str:
    value = record.get(key, default)
    if not isinstance(value, str) or not value.strip():
        raise _LineError(f"`{key}` is a text that is not empty, not {value!r}")
    if not _encodable(value):
        raise _LineError(f"`{key}` holds half of a surrogate pair, which no tokenizer can read")
    return value


def _encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _chat(messages: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(messages, list) or not messages:
        raise _LineError("`messages` is a list of messages that is not empty")
    for message in messages:
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise _LineError(f"a message has the keys role and content only, not {message!r}")
    return tuple((_string(message, "role"), _string(message, "content")) for message in messages)


def _check_pairs(path: Path, prompts: Sequence[Prompt]) -> None:
    classes = {prompt.triggered for prompt in prompts}
    if len(classes) == 1:
        kind = "triggered" if classes == {True} else "untriggered"
        raise InputError(
            f"{path} holds {kind} prompts only; every pair needs one line with triggered true and "
            "one with triggered false"
        )
    members: dict[str, list[bool]] = {}
    for prompt in prompts:
        members.setdefault(prompt.pair, []).append(prompt.triggered)
    broken = {pair: has for pair, has in members.items() if sorted(has) != [False, True]}
    if broken:
        seen = [
            f"{pair!r}: {sum(has)} triggered, {len(has) - sum(has)} untriggered"
            for pair, has in broken.items()
        ]
        raise InputError(
            f"{path}: {len(broken)} pairs are not one triggered and one untriggered prompt:\n"
            + _listed(seen)
        )


def _check_duplicates(path: Path, prompts: Sequence[Prompt], where: Sequence[int]) -> None:
    first: dict[tuple[str, tuple[tuple[str, str], ...]], int] = {}
    repeats = []
    for prompt, number in zip(prompts, where, strict=True):
        earlier = first.setdefault((prompt.text, prompt.chat), number)
        if earlier != number:
            repeats.append(f"line {number} has the text of line {earlier}")
    if repeats:
        raise InputError(
            f"{path} holds {len(repeats)} prompts twice, which would put copies on both sides of a "
            f"split, or label one text both ways:\n{_listed(repeats)}"
        )


def _listed(problems: Sequence[str]) -> str:
    more = len(problems) - SHOWN
    return "\n".join(problems[:SHOWN]) + (f"\n... and {more} more" if more > 0 else "")


def _record(prompt: Prompt) -> dict[str, Any]:
    record: dict[str, Any] = {"pair": prompt.pair, "triggered": prompt.triggered}
    if prompt.chat:
        record["messages"] = [{"role": role, "content": text} for role, text in prompt.chat]
    else:
        record["text"] = prompt.text
    optional = {key: getattr(prompt, key) for key in (*OPTIONAL, LABEL)}
    return record | {key: value for key, value in optional.items() if value is not None}
