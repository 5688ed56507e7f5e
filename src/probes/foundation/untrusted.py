"""Files that others wrote: JSON is read within limits of size, depth and digits, or refused in one line.

A hostile or broken file must not cost more memory or time than an honest one, and must not end in a
traceback far from where it was read. Everything that the package reads as JSON comes through here.
"""

import json
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pydantic

from probes.foundation.errors import InputError

MAX_BYTES = 128 * 2**20
"""Of one file; the largest tokenizer.json in use has about 35 MB."""
MAX_DEPTH = 64
MAX_DIGITS = 64
"""Of one integer; transformers itself writes int(1e30) where a length has no limit."""
MAX_CONTAINERS = 2 * 10**6
MAX_VALUES = 8 * 10**6
SHOWN = 3


def check_file(path: Path | str) -> int:
    """The size of a regular file in bytes; `InputError` for anything else that a path can name."""
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except PermissionError as error:
        raise InputError(f"no permission to read {path}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path} is a folder; give a file")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is a pipe, a socket or a device; give a file")
    return status.st_size


def read_text(path: Path | str) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises `InputError` where there is no regular file of at most `MAX_BYTES`, or none in UTF-8.
    """
    size = check_file(path)
    if size > MAX_BYTES:
        raise InputError(
            f"{path} has {size:,} bytes; at most {MAX_BYTES:,} are read. Split it, or leave out "
            "what is not needed"
        )
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path} is not UTF-8 (line {line}, {error.reason}); save it again as UTF-8"
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def read_json(path: Path | str, *, finite: bool = True) -> Any:
    """Plain JSON from a file; see `parse_json` for the limits."""
    return parse_json(read_text(path), str(path), finite=finite)


def read_object(path: Path | str) -> dict[str, Any]:
    """A JSON object from a file; `InputError` naming the file where it holds anything else."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path} is not a JSON object but {type(value).__name__}")
    return value


def parse_json(text: str | bytes, what: str, *, finite: bool = True) -> Any:
    """The value that a JSON text stands for.

    what: names the text in errors. finite: refuse NaN and the infinities, which are no JSON;
    False for tables of our own that hold them.
    Raises `InputError` for what is no JSON, for a key that occurs twice in an object, and for a text
    that is larger, deeper or richer in values or digits than the limits of this module.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        if len(text) > MAX_BYTES:
            raise _NotPlainError(f"it has {len(text):,} characters; at most {MAX_BYTES:,} are read")
        if text.count("[") + text.count("{") > MAX_CONTAINERS or text.count(",") > MAX_VALUES:
            raise _NotPlainError(
                f"it has more than {MAX_CONTAINERS:,} objects and lists, or {MAX_VALUES:,} values"
            )
        value = json.loads(
            text,
            object_pairs_hook=_without_repeats,
            parse_int=_integer,
            parse_float=_float if finite else None,
            parse_constant=_no_number if finite else None,
        )
        _check_depth(value)
        _check_encodable(text, value)
    except RecursionError:
        why = f"it is nested more than {MAX_DEPTH} deep"
    except json.JSONDecodeError as error:
        why = f"{error.msg} at line {error.lineno}, column {error.colno}"
    except UnicodeDecodeError as error:
        why = f"it is not UTF-8 ({error.reason})"
    except _NotPlainError as error:
        why = str(error)
    else:
        return value
    raise InputError(f"{what} is not JSON that can be read: {why}")


def in_one_line(error: pydantic.ValidationError) -> str:
    """What pydantic found wrong: at most `SHOWN` settings, each with the value that was seen."""
    found = error.errors(include_url=False, include_context=False)
    shown = [
        f"{'.'.join(map(str, each['loc'])) or 'the whole'}: {each['msg']} (saw {_short(each['input'])})"
        for each in found[:SHOWN]
    ]
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return " ".join(("; ".join(shown) + more).split())


class _NotPlainError(ValueError):
    """Something that Python's parser takes and no other does."""


def _without_repeats(items: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(items)
    if len(record) != len(items):
        raise _NotPlainError("a key occurs twice")
    return record


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _NotPlainError(
            f"an integer has {len(digits):,} digits; at most {MAX_DIGITS} are allowed"
        )
    return int(digits)


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _NotPlainError(f"the number {_short(text)} is too large")
    return value


def _no_number(name: str) -> NoReturn:
    raise _NotPlainError(f"{name} is no JSON number")


def _check_depth(value: Any) -> None:
    """Level by level, as what is too deep for Python's stack must not be walked on it."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [inner for each in level for inner in _inner(each)]
    if level:
        raise _NotPlainError(f"it is nested more than {MAX_DEPTH} deep")


def _inner(value: Any) -> Iterable[Any]:
    match value:
        case dict():
            return value.values()
        case list():
            return value
        case _:
            return ()


def _check_encodable(text: str, value: Any) -> None:
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise _NotPlainError(
                "it holds half of a surrogate pair, which no tokenizer can read"
            ) from None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
