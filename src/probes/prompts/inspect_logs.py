"""Logs of Inspect (`.eval`): their samples as prompts, and a copy of a log with a probe's score for each sample.

A log is a ZIP file of JSON; it is read and written as such, so that Inspect need not be installed.
"""

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow

from probes.foundation.artifact import write_bytes
from probes.foundation.errors import InputError
from probes.foundation.untrusted import MAX_BYTES, check_file, parse_json

SAMPLES, HEADER, SUMMARIES = "samples/", "header.json", "summaries.json"
ZSTANDARD = 93
"""How Inspect packs the members, by the number that ZIP files have for it."""
MOST_SAMPLES = 200_000
DEFECTED = "defected"
"""A score of this name is the label of what a model wrote; so is metadata of this name."""
ATTACHED = "attachment://"
YES, NO = (True, 1, "C"), (False, 0, "I")


def inspect_rows(path: Path | str, known: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The samples of a log as records of prompts, numbered, each once however many epochs it was run.

    The input is the text, or the messages. Of a sample's metadata the keys of `known` are taken; a score
    "defected" that is true or false, 1 or 0, "C" or "I" is the label. Raises `InputError` for a file
    that is no such log.
    """
    seen: set[str] = set()
    with _opened(path) as log:
        for name in _samples(path, log):
            sample = _object(path, log, name)
            if (one := str(sample.get("id"))) in seen:
                continue
            seen.add(one)
            given = _part(sample, "metadata")
            record = {key: given[key] for key in known if given.get(key) is not None}
            score = _part(_part(sample, "scores"), DEFECTED).get("value")
            if isinstance(score, bool | int | float | str) and score in (*YES, *NO):
                record[DEFECTED] = score in YES
            yield len(seen), record | _content(sample)


def add_scores(path: Path | str, out: Path | str, scores: list[float], name: str = "probe") -> Path:
    """A copy of a log in which each sample has one more score, so that `inspect view` shows it.

    scores: of the samples in the order of `inspect_rows`; all epochs of a sample get its score.
    """
    numbers: dict[str, float] = {}
    left = iter(scores)
    made = io.BytesIO()
    with _opened(path) as log, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as copy:
        samples = _samples(path, log)
        for member in samples:
            sample = _object(path, log, member)
            one = str(sample.get("id"))
            if one not in numbers:
                if (score := next(left, None)) is None:
                    raise InputError(f"{path} has more samples than the {len(scores)} scores given")
                numbers[one] = float(score)
            sample["scores"] = _part(sample, "scores") | {name: {"value": numbers[one]}}
            copy.writestr(member, json.dumps(sample))
        for member in log.namelist():
            if member in samples:
                continue
            if member == SUMMARIES:
                rows = _read(path, log, member)
                for row in rows if isinstance(rows, list) else []:
                    if isinstance(row, dict) and (one := str(row.get("id"))) in numbers:
                        row["scores"] = _part(row, "scores") | {name: {"value": numbers[one]}}
                copy.writestr(member, json.dumps(rows))
            elif member == HEADER:
                header = _object(path, log, member)
                results, mean = _part(header, "results"), sum(numbers.values()) / len(numbers)
                shown = {"mean": {"name": "mean", "value": mean, "params": {}}}
                about = {"name": name, "scorer": name, "params": {}, "metrics": shown}
                before = results.get("scores")
                before = before if isinstance(before, list) else []
                header["results"] = results | {"scores": [*before, about]}
                copy.writestr(member, json.dumps(header))
            else:
                copy.writestr(member, _bytes(path, log, member))
    write_bytes(out, made.getvalue())
    return Path(out)


def _part(whole: Mapping[str, Any], key: str) -> dict[str, Any]:
    """What stands under a key, if it is a mapping; else an empty one, as for a key that is not there."""
    found = whole.get(key)
    return found if isinstance(found, dict) else {}


def _content(sample: Mapping[str, Any]) -> dict[str, Any]:
    given, attached = sample.get("input"), _part(sample, "attachments")

    def whole(text: Any) -> Any:
        if isinstance(text, list):
            return "".join(str(part.get("text", "")) for part in text if isinstance(part, dict))
        found = str(text).removeprefix(ATTACHED)
        return attached.get(found, text) if str(text).startswith(ATTACHED) else text

    if isinstance(given, list):
        turns = [one for one in given if isinstance(one, dict)]
        return {"messages": [{"role": one.get("role"), "content": whole(one.get("content"))} for one in turns]}  # fmt: skip
    return {"text": whole(given)}


def _opened(path: Path | str) -> zipfile.ZipFile:
    check_file(path)
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise InputError(f"{path} is no log of Inspect ({error}): a `.eval` file is a ZIP file of JSON") from error  # fmt: skip


def _samples(path: Path | str, log: zipfile.ZipFile) -> list[str]:
    """The members that are samples, in the order in which they were written."""
    found = [name for name in log.namelist() if name.startswith(SAMPLES) and name.endswith(".json")]
    if not found:
        raise InputError(f"{path} holds no samples: give a log of an evaluation that was run")
    if len(found) > MOST_SAMPLES:
        raise InputError(f"{path} holds {len(found):,} samples; at most {MOST_SAMPLES:,} are read")
    return found


def _object(path: Path | str, log: zipfile.ZipFile, name: str) -> dict[str, Any]:
    found = _read(path, log, name)
    if not isinstance(found, dict):
        raise InputError(f"{path}: {name} is not a JSON object but {type(found).__name__}")
    return found


def _read(path: Path | str, log: zipfile.ZipFile, name: str) -> Any:
    return parse_json(_bytes(path, log, name), f"{path}: {name}", finite=False)


def _bytes(path: Path | str, log: zipfile.ZipFile, name: str) -> bytes:
    """One member, packed as Inspect packs it; refused where it turns out larger than any file that is read."""
    member = log.getinfo(name)
    try:
        if member.compress_type == ZSTANDARD:
            packed = pyarrow.BufferReader(_packed(path, member))
            found = bytes(pyarrow.CompressedInputStream(packed, "zstd").read(MAX_BYTES + 1))
        else:
            with log.open(member) as stream:
                found = stream.read(MAX_BYTES + 1)
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
        struct.error,
        zlib.error,
    ) as error:
        raise InputError(f"{path}: {name} cannot be read: {error}") from error
    if len(found) > MAX_BYTES:
        raise InputError(f"{path}: {name} has more than the {MAX_BYTES:,} bytes that are read")
    return found


def _packed(path: Path | str, member: zipfile.ZipInfo) -> bytes:
    """A member's bytes as they lie in the file, which `zipfile` does not unpack before Python 3.14."""
    with Path(path).open("rb") as file:
        file.seek(member.header_offset)
        name, extra = struct.unpack("<26x2H", file.read(30))
        file.seek(name + extra, 1)
        return file.read(min(member.compress_size, MAX_BYTES))
