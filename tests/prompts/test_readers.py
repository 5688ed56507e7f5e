"""A user's prompts file: the round trip, and every way in which a file can be broken."""

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest

from probes.foundation.errors import InputError
from probes.prompts.readers import ALLOWED, read_prompts, write_prompts
from probes.prompts.records import Prompt, with_design


def line(pair: str = "a", triggered: object = True, **more: object) -> dict[str, object]:
    return {"text": f"{pair} {triggered}", "pair": pair, "triggered": triggered} | more


GOOD = [line("a", True), line("a", False), line("b", True), line("b", False)]


def write(path: Path, records: list[object]) -> Path:
    path = path / "prompts.jsonl"
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_defaults_group_splits_by_pair(tmp_path: Path) -> None:
    prompts = read_prompts(write(tmp_path, GOOD))
    assert prompts[1] == Prompt("a False", "own", "vulnerable", "a", "a", False)
    assert [prompt.triggered for prompt in prompts] == [True, False, True, False]


def test_round_trip_is_identical(tmp_path: Path) -> None:
    one = Prompt(
        text="Zeile\u2028zwei\u0085 \x0b 'ü' \\n\n", family="f", prompt_set="benign", template="t",
        pair="p", triggered=True, safe="s", defect="d", quirk="q", heldout="phrasing",
        defected=False, cue="none", able=False,
    )  # fmt: skip
    prompts = [
        one,
        dataclasses.replace(one, text="other", triggered=False, safe=None, heldout=None),
        Prompt("", "f", "dialogue", "t", "c", True, chat=(("system", "be"), ("user", "hi\n"))),
        Prompt("", "f", "dialogue", "t", "c", False, chat=(("user", "hi"),)),
    ]
    path = write_prompts(tmp_path / "out.jsonl", prompts)
    again = read_prompts(path)
    assert again == prompts
    assert [prompt.id for prompt in again] == [prompt.id for prompt in prompts]
    assert write_prompts(tmp_path / "two.jsonl", again).read_bytes() == path.read_bytes()


def test_labels_that_are_not_set_do_not_count_for_the_id() -> None:
    """Ids from before these labels existed are in stores and tables."""
    plain = Prompt("a", "f", "s", "t", "p", True)
    assert plain.id[:8] == "5da8297b"
    ids = {dataclasses.replace(plain, **one).id for one in ({"cue": "A"}, {"able": False})}
    assert len(ids | {plain.id}) == 3
    old = pd.DataFrame([plain.as_row()]).drop(columns=["cue", "able"])
    pd.testing.assert_frame_equal(with_design(old), pd.DataFrame([plain.as_row()]))


def test_blank_lines_and_a_byte_order_mark_are_no_error(tmp_path: Path) -> None:
    path = write(tmp_path, [*GOOD[:2], "", "  ", *GOOD[2:]])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_text().replace("\n", "\r\n").encode())
    assert len(read_prompts(path)) == 4


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object but list"),
        ("[" * 100_000, "nested more than 64 deep"),
        ('{"pair": "a", "pair": "b", "triggered": true, "text": "x"}', "twice"),
        (line(defects=True), "unknown key 'defects'.*Choose one of: " + ", ".join(ALLOWED)),
        (line(defected="yes"), "`defected` is true or false, not 'yes'"),
        (line(familly="x"), "Did you mean 'family'"),
        ({"text": "x", "pair": "a"}, "triggered are missing"),
        ({"pair": "a", "triggered": True}, "either `text` or `messages`"),
        ({"question": "a", "input": "b"}, "either `text` or `messages`; saw question, input"),
        (line(messages=[{"role": "user", "content": "x"}]), "either `text` or `messages`"),
        (line(triggered="yes"), "`triggered` is true or false, not 'yes'"),
        (line(triggered=1), "`triggered` is true or false, not 1"),
        (line(text=""), "`text` is a text"),
        (line(text=3), "`text` is a text"),
        (line(text="\ud800"), "surrogate"),
        (line(pair=7), "`pair` is a text"),
        (line(family=None), "`family` is a text"),
        (line(safe=3), "`safe` is a text"),
        ({"messages": [], "pair": "a", "triggered": True}, "`messages` is a list"),
        ({"messages": ["hi"], "pair": "a", "triggered": True}, "role and content"),
        ({"messages": [{"role": "user"}], "pair": "a", "triggered": True}, "role and content"),
    ],
)
def test_a_broken_line_is_named_by_its_number(tmp_path: Path, bad: object, message: str) -> None:
    with pytest.raises(InputError, match=rf"has 1 broken lines:\nline 3: .*{message}"):
        read_prompts(write(tmp_path, [*GOOD[:2], bad, *GOOD[2:]]))


def test_all_broken_lines_come_in_one_error_the_first_twenty_in_full(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_prompts(write(tmp_path, [*GOOD, *["?"] * 25]))
    text = str(error.value)
    assert "25 broken lines" in text
    assert all(f"line {number}:" in text for number in range(5, 25))
    assert "line 25:" not in text
    assert "and 5 more" in text


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([line("a"), line("b")], "triggered prompts only"),
        ([line("a", False), line("b", False)], "untriggered prompts only"),
        ([*GOOD, line("c")], r"1 pairs.*\n'c': 1 triggered, 0 untriggered"),
        ([*GOOD, line("b", text="x")], r"1 pairs.*\n'b': 2 triggered, 1 untriggered"),
        (
            [*GOOD, line("c"), line("c", text="y"), line("d", False)],
            r"2 pairs.*\n'c': 2 triggered, 0 untriggered\n'd': 0 triggered, 1 untriggered",
        ),
        ([line("a", text="x"), line("a", False, text="x")], "line 2 has the text of line 1"),
        ([], "is empty"),
    ],
)
def test_pairs_must_be_one_of_each_and_texts_unique(
    tmp_path: Path, records: list[object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_prompts(write(tmp_path, records), paired=True)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file .*gone\.jsonl"):
        read_prompts(tmp_path / "gone.jsonl")
    with pytest.raises(InputError, match="is a folder"):
        read_prompts(tmp_path)
    (tmp_path / "latin.jsonl").write_bytes(json.dumps(GOOD[0]).encode() + b'\n{"text": "\xfc"}')
    with pytest.raises(InputError, match=r"not UTF-8 \(line 2"):
        read_prompts(tmp_path / "latin.jsonl")
