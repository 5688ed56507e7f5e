"""JSON and regular expressions of others are read within limits; the patterns of honest tokenizers pass."""

import os
import time
from pathlib import Path

import pytest

from probes.foundation import patterns, untrusted
from probes.foundation.config import Config
from probes.foundation.errors import InputError
from probes.foundation.patterns import Pattern, check_linear
from probes.foundation.untrusted import parse_json, read_json, read_text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 100_000, "nested more than 64 deep"),
        ("[" * 66 + "]" * 66, "nested more than 64 deep"),
        ('{"a": ' + "1" * 5000 + "}", "5,000 digits"),
        ("1e400", "too large"),
        ("[NaN]", "NaN is no JSON number"),
        ('{"a": 1, "a": 2}', "a key occurs twice"),
        (r'"\ud800"', "half of a surrogate pair"),
        ("", "Expecting value"),
        ("[" * 70 + "," * 20, "Expecting value"),
        (b"\xff\xfe{}", "not UTF-8"),
    ],
)
def test_json_beyond_the_limits_is_refused_in_one_line(text, why):
    with pytest.raises(InputError, match=why) as caught:
        parse_json(text, "it")
    assert "\n" not in str(caught.value)


def test_json_within_the_limits_is_read():
    assert parse_json("[" * 65 + "]" * 65, "it")
    assert parse_json(b'\xef\xbb\xbf{"a": 1e30, "b": "\\ud83d\\ude00"}', "it") == {
        "a": 1e30,
        "b": "😀",
    }
    assert parse_json("[NaN, -Infinity]", "it", finite=False)[1] == float("-inf")


def test_many_small_objects_are_refused_before_they_are_built(monkeypatch):
    monkeypatch.setattr(untrusted, "MAX_CONTAINERS", 10)
    with pytest.raises(InputError, match="more than 10 objects"):
        parse_json("[" + ",".join(["[]"] * 10) + "]", "it")


def test_only_regular_files_of_some_size_are_read(tmp_path: Path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "big").write_text("[1, 2, 3]")
    monkeypatch.setattr(untrusted, "MAX_BYTES", 8)
    for name, why in (
        ("pipe", "a pipe, a socket or a device"),
        ("", "is a folder"),
        ("big", "has 9 bytes; at most 8"),
        ("gone", "there is no file"),
        ("x" * 300, "cannot be read"),
        ("a\0b", "cannot be read"),
    ):
        with pytest.raises(InputError, match=why):
            read_json(tmp_path / name)
    (tmp_path / "utf16").write_bytes("[1]".encode("utf-16")[:8])
    with pytest.raises(InputError, match="not UTF-8"):
        read_text(tmp_path / "utf16")


class Sizes(Config):
    n: int = 1
    rate: float = 0.5
    names: tuple[str, ...] = ()


@pytest.mark.parametrize("value", ['{"n": true}', '{"n": "1"}', '{"n": 1.0}', '{"rate": "0.5"}'])
def test_a_config_takes_no_text_or_truth_for_a_number(tmp_path: Path, value: str):
    (tmp_path / "c.json").write_text(value)
    with pytest.raises(InputError, match="is not a valid Sizes") as caught:
        Sizes.from_file(tmp_path / "c.json")
    assert "\n" not in str(caught.value)
    (tmp_path / "c.json").write_text('{"n": 2, "rate": 1, "names": ["a"]}')
    assert Sizes.from_file(tmp_path / "c.json") == Sizes(n=2, rate=1.0, names=("a",))


@pytest.mark.parametrize("pattern", [r"(.|[a-z])*[A-Z]"])
def test_a_pattern_of_exponential_time_ends_in_an_error(pattern: str, monkeypatch):
    monkeypatch.setattr(patterns, "SECONDS", 0.2)
    start = time.process_time()
    with pytest.raises(InputError, match="takes more than"):
        Pattern(pattern, "--trigger-pattern").search("ab" * 400)
    with pytest.raises(InputError, match="takes more than"):
        Pattern(pattern, "target_modules").matching(["ab" * 400] * 100)
    assert time.process_time() - start < 10 * patterns.SECONDS


HONEST = [
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
    r" ?[^(\s|[.,!?…。，、।۔،])]+",
    r"(?=(\d{3})+(?!\d))",
    r"\d{1,3}(?=(?:\d{3})*\b)",
]
HOSTILE = [
    *("(a+)+$", "(a|a)*$", "(a|aa){5,}b", "((a?){9}){9}", "(?:a*)*", "a*a*a*a*a*b", "(a*)?+x"),
    *("((a|a))*", "(a?)*", "(a{2,3})+", "(?:(?:a+)b?)+", "a" * 5000),
]


@pytest.mark.parametrize("pattern", HONEST)
def test_patterns_of_tokenizers_in_use_pass(pattern: str):
    check_linear(pattern, "tokenizer.json")


@pytest.mark.parametrize("pattern", HOSTILE)
def test_patterns_that_could_take_for_ever_are_refused(pattern: str):
    with pytest.raises(InputError, match="Refused"):
        check_linear(pattern, "tokenizer.json")
