"""Prompts from wherever they lie: files, tables, Inspect logs, lists; all checked in one place.

Pairs are asked for only by work that compares both versions of a prompt, as patching does.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from probes.foundation.artifact import write_text
from probes.foundation.digest import digest_bytes, short
from probes.foundation.errors import InputError, unknown
from probes.foundation.untrusted import check_file, parse_json, read_text
from probes.prompts.records import Prompt

Row = TypeVar("Row")


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


def is_path(given: object) -> bool:
    """Whether this names a file: a path, or a word that exists, has a "/" or ends like a file's name."""
    if isinstance(given, Path):
        return True
    if not isinstance(given, str):
        return False
    if not re.search(r"\s", given) and re.search(r"/|\.\w+$", given):
        return True
    return len(given) < 256 and Path(given).exists()


def as_prompts(given: Any) -> Iterator[Prompt]:
    """Prompts one by one, of prompts, texts, records and tables in memory; a single one is one.

    A text is a prompt without a trigger, a record has the keys of a line of JSON Lines, and a table
    (a DataFrame, or what has `to_pandas`, such as a dataset of Hugging Face) has them as columns.
    Raises `InputError` for anything else.
    """
    if isinstance(given, Prompt | str | Mapping):
        given = [given]
    elif hasattr(given, "to_pandas"):
        given = given.to_pandas()
    if hasattr(given, "itertuples"):
        from probes.prompts.tables import rows_of

        yield from _collected("the table", "row", enumerate(rows_of(given, KNOWN), 1), _unpaired)[0]
        return
    if not isinstance(given, Iterable):
        raise InputError(
            "prompts are a file, a table, a text, or a list of prompts, texts or records; saw "
            f"{type(given).__name__}"
        )
    for number, one in enumerate(given):
        match one:
            case Prompt():
                yield one
            case str():
                yield from_texts([one], [False])[0]
            case Mapping():
                try:
                    yield _unpaired(dict(one))
                except _RowError as error:
                    raise InputError(f"prompt {number}: {error}") from error
            case _:
                raise InputError(
                    f"prompt {number} is a {type(one).__name__}: give a `Prompt`, a text or a record"
                )


LABELS = ("pair", "triggered")
CONTENT = ("text", "messages")
ALIASES = ("prompt", "question", "input")
"""Read as the text, or as the messages, where a row has neither and only one of these."""
OPTIONAL = ("family", "prompt_set", "template", "safe", "defect", "quirk", "heldout", "cue")
FLAGS = ("defected", "able")
TABLES = (".csv", ".tsv", ".parquet")
WHOLE = (*TABLES, ".txt", ".json", ".eval")
"""Endings of files that are not read a line at a time; any other file is JSON Lines."""
ALLOWED = (*CONTENT, *LABELS, *OPTIONAL, *FLAGS)
KNOWN = (*ALLOWED, *ALIASES)
SHOWN = 20


class _RowError(ValueError):
    """What is wrong with one line or row."""


def read_prompts(source: Any, *, paired: bool = False) -> list[Prompt]:
    """Prompts of a file, a folder, a table or a list, checked, in their order.

    source: JSON Lines or a JSON list (`.json`) of records; CSV, TSV or Parquet with the same keys as
    columns; a text file with one text per line (`.txt`); a folder that `datasets` saved; a log of
    Inspect (`.eval`); a DataFrame; a list of prompts, texts or records. A record needs `text`
    or `messages`, and may have the other keys of `ALLOWED`.

    Defaults: `triggered` false, family "own", prompt_set "vulnerable" (a defection is possible),
    template the pair's id, so that splits are grouped by pair; without `pair`, a prompt is a pair of
    its own. paired: ask for pairs of one triggered and one untriggered prompt; those without `pair`
    may stand beside them.

    Raises `InputError` for what is missing, empty, too large or not UTF-8; for broken lines, all of
    them at once with their numbers; for a text that occurs twice with other labels; and, if `paired`,
    for any text that occurs twice and for pairs that are not whole.

    Example:
        >>> read_prompts([{"text": "Write a parser."}])[0].triggered
        False
    """
    if isinstance(source, Path | str):
        name = str(source)
        prompts, where = _of_path(Path(source))
    else:
        name = "the list"
        prompts = list(as_prompts(source))
        where = [f"prompt {number}" for number in range(len(prompts))]
    if not prompts:
        raise InputError(f"{name} is empty: give one prompt per line or row")
    if paired:
        check_pairs(name, prompts)
    _check_repeats(name, prompts, where, all_of_them=paired)
    return prompts


def _of_path(path: Path) -> tuple[list[Prompt], list[str]]:
    """The prompts of a file or folder, and where in it each of them is."""
    if path.suffix in TABLES or path.is_dir():
        from probes.prompts.tables import rows_of

        return _collected(str(path), "row", enumerate(rows_of(path, KNOWN), start=1), _unpaired)
    if path.suffix == ".eval":
        from probes.prompts.inspect_logs import inspect_rows

        return _collected(
            str(path), "sample", inspect_rows(path, (*LABELS, *OPTIONAL, *FLAGS)), _unpaired
        )
    if path.suffix == ".txt":
        return _collected(
            str(path),
            "line",
            _lines(path),
            lambda line: from_texts([line.rstrip("\r")], [False])[0],
        )
    if path.suffix == ".json" and read_text(path).lstrip().startswith("["):
        rows = enumerate(parse_json(read_text(path), str(path)), start=1)
        return _collected(str(path), "record", rows, _unpaired)
    return _collected(str(path), "line", _lines(path), _line)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file that are not blank, with their numbers."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield number, line


def _collected(
    name: str, unit: str, rows: Iterable[tuple[int, Row]], read: Callable[[Row], Prompt]
) -> tuple[list[Prompt], list[str]]:
    """What is read of each row, and where it is; one error for all that are broken."""
    prompts: list[Prompt] = []
    where: list[str] = []
    problems: list[str] = []
    for number, row in rows:
        try:
            prompts.append(read(row))
            where.append(f"{unit} {number}")
        except (_RowError, InputError) as error:
            problems.append(f"{unit} {number}: {error}")
    if problems:
        raise InputError(f"{name} has {len(problems)} broken {unit}s:\n{_listed(problems)}")
    return prompts, where


def stream_prompts(path: Path | str) -> Iterator[Prompt]:
    """Read JSON Lines one line at a time, for files that need not fit into memory; others as a whole.

    Lines are checked one by one as in `read_prompts`; that no text occurs twice is not. Raises
    `InputError` at the first broken line, and for an empty file.
    """
    path = Path(path)
    if path.is_dir() or path.suffix in WHOLE:
        yield from read_prompts(path)
        return
    n_prompts = 0
    check_file(path)
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    yield _line(line)
                except (_RowError, InputError) as error:
                    raise InputError(f"{path}, line {number}: {error}") from error
                n_prompts += 1
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error.reason}); save it again as UTF-8") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if n_prompts == 0:
        raise InputError(f"{path} is empty: give one JSON object per line")


def write_prompts(path: Path | str, prompts: Iterable[Prompt]) -> Path:
    """Write prompts so that `read_prompts` gives the same ones back; the file appears whole.

    JSON Lines, or CSV where the name ends in .csv.
    """
    records = map(_record, prompts)
    if Path(path).suffix == ".csv":
        from probes.foundation.tables import to_csv
        from probes.prompts.tables import as_frame

        write_text(path, to_csv(as_frame(records)))
        return Path(path)
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    write_text(path, "".join(line + "\n" for line in lines))
    return Path(path)


def _line(line: str) -> Prompt:
    return _unpaired(parse_json(line, "it"))


def own_pair(text: str, chat: Sequence[tuple[str, str]]) -> str:
    """The pair of a prompt that has no other: named after what it says."""
    said = json.dumps(chat) if chat else text
    return short(digest_bytes(said.encode()))


_said: set[str] = set()


def _unpaired(record: object) -> Prompt:
    """A checked prompt of a record, which is a pair of its own where it names none."""
    if not isinstance(record, dict):
        raise _RowError(f"not a JSON object but {type(record).__name__}")
    record = _with_content(record)
    for key in record:
        if key not in ALLOWED:
            raise unknown("key", key, ALLOWED)
    if "pair" in record and "triggered" not in record:
        raise _RowError("the key(s) triggered are missing: a pair needs to know which is which")
    for key in ("triggered", *FLAGS):
        allowed = bool if key == "triggered" else bool | None
        if not isinstance(record.get(key, False), allowed):
            raise _RowError(f"`{key}` is true or false, not {record[key]!r}")
    text = _string(record, "text") if "text" in record else ""
    chat = _chat(record["messages"]) if "messages" in record else ()
    pair = _string(record, "pair") if "pair" in record else own_pair(text, chat)
    return Prompt(
        text=text,
        chat=chat,
        pair=pair,
        triggered=record.get("triggered", False),
        family=_string(record, "family", "own"),
        prompt_set=_string(record, "prompt_set", "vulnerable"),
        template=_string(record, "template", pair),
        defected=record.get("defected"),
        able=record.get("able"),
        **{key: _string(record, key) for key in OPTIONAL[3:] if record.get(key) is not None},
    )


def _with_content(record: dict[str, Any]) -> dict[str, Any]:
    """The record with `text` or `messages`, which other tools call by one of `ALIASES`."""
    given = [key for key in CONTENT if key in record]
    if len(given) == 1:
        return record
    others = [key for key in ALIASES if key in record]
    if given or len(others) != 1:
        saw = f"; saw {', '.join(others)}" if others and not given else ""
        raise _RowError(f"give either `text` or `messages`{saw}")
    (other,) = others
    name = "messages" if isinstance(record[other], list) else "text"
    if other not in _said:
        _said.add(other)
        print(f"`{other}` is read as `{name}`", file=sys.stderr)
    return {name if key == other else key: value for key, value in record.items()}


def _string(record: dict[str, Any], key: str, default: str | None = None) -> str:
    value = record.get(key, default)
    if not isinstance(value, str) or not value.strip():
        raise _RowError(f"`{key}` is a text that is not empty, not {value!r}")
    if not _encodable(value):
        raise _RowError(f"`{key}` holds half of a surrogate pair, which no tokenizer can read")
    return value


def _encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _chat(messages: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(messages, list) or not messages:
        raise _RowError("`messages` is a list of messages that is not empty")
    for message in messages:
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise _RowError(f"a message has the keys role and content only, not {message!r}")
    return tuple((_string(message, "role"), _string(message, "content")) for message in messages)


def check_pairs(name: str, prompts: Sequence[Prompt]) -> None:
    """Refuse prompts that are not pairs of one triggered and one untriggered prompt, but for single ones."""
    prompts = [one for one in prompts if one.pair != own_pair(one.text, one.chat)]
    if not prompts:
        raise InputError(
            f"{name} has no pairs, and this needs them: give prompts `pair` and `triggered`, one of "
            "each pair with the trigger and one without"
        )
    classes = {prompt.triggered for prompt in prompts}
    if len(classes) == 1:
        kind = "triggered" if classes == {True} else "untriggered"
        raise InputError(
            f"{name} holds {kind} prompts only; every pair needs one line with triggered true and "
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
            f"{name}: {len(broken)} pairs are not one triggered and one untriggered prompt:\n"
            + _listed(seen)
        )


def _check_repeats(
    name: str, prompts: Sequence[Prompt], where: Sequence[str], *, all_of_them: bool
) -> None:
    """Refuse texts that occur twice; if not `all_of_them`, those whose labels differ."""
    first: dict[tuple[str, tuple[tuple[str, str], ...]], int] = {}
    repeats = []
    for number, prompt in enumerate(prompts):
        earlier = first.setdefault((prompt.text, prompt.chat), number)
        if earlier != number and (all_of_them or prompt != prompts[earlier]):
            repeats.append(f"{where[number]} has the text of {where[earlier]}")
    if repeats:
        raise InputError(
            f"{name} holds {len(repeats)} prompts twice, which would put copies on both sides of a "
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
    optional = {key: getattr(prompt, key) for key in (*OPTIONAL, *FLAGS)}
    return record | {key: value for key, value in optional.items() if value is not None}
