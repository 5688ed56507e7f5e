"""Prompts from tables of every kind: the same prompts from each, and what a table may not do."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from probes.activations.sequences import stream
from probes.foundation.errors import InputError, IntegrityError
from probes.prompts import tables
from probes.prompts.readers import as_prompts, read_prompts, write_prompts
from probes.prompts.records import Prompt
from probes.prompts.tables import as_frame

RECORDS: list[dict[str, Any]] = [
    {"text": "=SUM(A1)\r\nnot a formula", "pair": "1", "triggered": True, "defected": True, "safe": "x", "cue": "A", "able": True},
    {"text": "'=it, \"quoted\"", "pair": "1", "triggered": False, "defected": False},
    {"messages": [{"role": "user", "content": "-hi\tü"}], "triggered": False, "family": "chat"},
    {"text": "NA", "prompt_set": "benign"},
]  # fmt: skip
PROMPTS = list(as_prompts(RECORDS))


def jsonl(folder: Path) -> Path:
    return write_prompts(folder / "p.jsonl", PROMPTS)


def array(folder: Path) -> Path:
    (folder / "p.json").write_text(json.dumps(RECORDS, indent=1))
    return folder / "p.json"


def csv(folder: Path) -> Path:
    return write_prompts(folder / "p.csv", PROMPTS)


def tsv(folder: Path) -> Path:
    as_frame(RECORDS).to_csv(folder / "p.tsv", sep="\t", index=False, lineterminator="\r\n")
    text = (folder / "p.tsv").read_bytes().replace(b"=SUM", b"'=SUM").replace(b"'=it", b"''=it")
    (folder / "p.tsv").write_bytes(text)
    return folder / "p.tsv"


def parquet(folder: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(columns()), folder / "p.parquet")
    return folder / "p.parquet"


def dataset(folder: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(columns()).save_to_disk(folder / "d", num_shards=2)
    return folder / "d"


def frame(folder: Path) -> pd.DataFrame:
    return pd.DataFrame(RECORDS).assign(pair=[1.0, 1.0, None, None])


def columns() -> list[dict[str, Any]]:
    keys = {key for record in RECORDS for key in record}
    return [{key: record.get(key) for key in sorted(keys)} for record in RECORDS]


@pytest.mark.parametrize(
    "made", [jsonl, array, csv, tsv, parquet, dataset, frame, lambda _: RECORDS]
)
def test_every_source_gives_the_same_prompts(tmp_path: Path, made: Callable[[Path], Any]) -> None:
    source = made(tmp_path)
    assert read_prompts(source) == PROMPTS
    assert list(stream(source)) == PROMPTS


def test_without_labels_a_prompt_is_a_pair_of_its_own_and_untriggered(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("one\n\ntwo\r\n")
    one, two = read_prompts(tmp_path / "p.txt")
    assert (one.text, two.text) == ("one", "two")
    assert one.pair != two.pair and not one.triggered
    assert read_prompts(["one", "two"]) == [one, two]
    (record,) = read_prompts([{"text": "one"}])
    assert record.pair == one.pair == record.template


def test_pairs_are_asked_for_only_where_they_are_needed() -> None:
    with pytest.raises(InputError, match="has no pairs, and this needs them"):
        read_prompts(RECORDS[2:], paired=True)
    assert read_prompts(RECORDS, paired=True) == PROMPTS  # single prompts beside whole pairs
    with pytest.raises(InputError, match=r"1 pairs are not .*\n'2': 0 triggered, 1 untriggered"):
        read_prompts([*RECORDS, {"text": "c", "pair": "2", "triggered": False}], paired=True)


def test_a_text_may_occur_twice_only_with_the_same_labels() -> None:
    assert len(read_prompts(["one", "one"])) == 2
    with pytest.raises(InputError, match="prompt 1 has the text of prompt 0"):
        read_prompts([{"text": "one", "defected": flag} for flag in (True, False)])
    with pytest.raises(InputError, match="prompt 4 has the text of prompt 3"):
        read_prompts([*RECORDS, RECORDS[3]], paired=True)


@pytest.mark.parametrize(
    ("column", "cell"), [("prompt", "hi"), ("question", "hi"), ("input", "hi"), ("prompt", None)]
)
def test_other_names_of_the_text_are_said_once(
    column: str, cell: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr("probes.prompts.readers._said", set())
    chat = [{"role": "user", "content": "hi"}]
    rows = [
        {column: cell or chat},
        {column: cell or [*chat, {"role": "assistant", "content": "x"}]},
    ]
    found = read_prompts(rows if cell is None else pd.DataFrame(rows[:1]))
    assert found[0] == Prompt(
        cell or "", "own", "vulnerable", found[0].pair, found[0].pair, False,
        chat=() if cell else (("user", "hi"),),
    )  # fmt: skip
    name = "text" if cell else "messages"
    assert capsys.readouterr().err == f"`{column}` is read as `{name}`\n"


def test_other_columns_are_left_out_and_said_and_misspelt_ones_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.csv").write_text("id,text,score\n1,a,0.5\n2,b,1\n")
    assert [prompt.text for prompt in read_prompts(tmp_path / "p.csv")] == ["a", "b"]
    assert "not read are the columns 'id', 'score'" in capsys.readouterr().err
    with pytest.raises(InputError, match="Did you mean 'triggered'"):
        read_prompts(pd.DataFrame({"text": ["a"], "trigered": [True]}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("text\n", "is empty"),
        ("text,pair\na,1\n", "row 1: the key.s. triggered are missing"),
        ("text,triggered\na,maybe\n", "row 1: `triggered` is true or false, not 'maybe'"),
        ("text,text\na,b\n", "the column 'text' twice"),
        ("text\na,b,c\n", "is not a table"),
        ('text\n"open\n', "is not a table"),
        ("text\na\x00b\n", "."),
        ("," * 2000 + "\n", "columns"),
        ("messages\n[[[\n", "is not JSON"),
        ("messages,family\n" + '"' + "[" * 200 + "]" * 200 + '",a\n', "nested more than 64 deep"),
        ("family\na\n", "row 1: give either `text` or `messages`"),
    ],
)
def test_a_broken_csv_is_refused_in_one_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    if message == ".":  # a zero byte may be read or refused, but not in a traceback
        assert read_prompts(tmp_path / "p.csv")[0].text
        return
    with pytest.raises(InputError, match=message):
        read_prompts(tmp_path / "p.csv")


def test_a_table_that_unpacks_beyond_the_limit_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MAX_BYTES", 2**20)
    text = pa.array(["x" * 2**14] * 200).dictionary_encode()
    pq.write_table(pa.table({"text": text}), tmp_path / "bomb.parquet")
    assert (tmp_path / "bomb.parquet").stat().st_size < 2**20 / 20
    with pytest.raises(InputError, match="when unpacked"):
        read_prompts(tmp_path / "bomb.parquet")


@pytest.mark.parametrize("cut", [0, 4, 60, -40])
def test_a_cut_file_is_refused(tmp_path: Path, cut: int) -> None:
    whole = parquet(tmp_path).read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[:cut])
    with pytest.raises(InputError, match=r"cut\.parquet is"):
        read_prompts(tmp_path / "cut.parquet")
    folder = dataset(tmp_path)
    shard = next(folder.glob("data-00000*.arrow"))
    shard.write_bytes(shard.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"is n"):
        read_prompts(folder)


def test_a_dataset_leads_to_no_file_outside_its_folder(tmp_path: Path) -> None:
    folder = dataset(tmp_path)
    shard = next(folder.glob("data-00000*.arrow"))
    shard.rename(tmp_path / "outside.arrow")
    shard.symlink_to(tmp_path / "outside.arrow")
    with pytest.raises(IntegrityError, match="link"):
        read_prompts(folder)
    (folder / "state.json").write_text('{"_data_files": [{"filename": "../outside.arrow"}]}')
    with pytest.raises(IntegrityError, match=r"names '\.\./outside\.arrow'"):
        read_prompts(folder)


def test_of_several_splits_one_is_to_be_given(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    one = datasets.Dataset.from_list([{"text": "a"}])
    datasets.DatasetDict({"train": one, "test": one}).save_to_disk(tmp_path / "d")
    with pytest.raises(InputError, match=r"the splits train, test: give one, such as .*d/train"):
        read_prompts(tmp_path / "d")
    assert read_prompts(tmp_path / "d" / "train")[0].text == "a"
    assert dataclasses.replace(read_prompts(one)[0], text="") != read_prompts(one)[0]


@pytest.mark.parametrize("listed", ["3", "null", '"a"', "[3]", '{"a": 1}', "[]"])
def test_a_dataset_that_names_no_files_is_refused(tmp_path: Path, listed: str) -> None:
    (tmp_path / "state.json").write_text(f'{{"_data_files": {listed}}}')
    with pytest.raises(InputError, match="names no data files: save the dataset again"):
        read_prompts(tmp_path)
