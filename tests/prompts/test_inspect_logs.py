"""Logs of Inspect are read as prompts, and get a probe's scores, without Inspect being there."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow
import pytest

from inspect_log import write_log
from probes.foundation.errors import InputError
from probes.prompts.inspect_logs import SUMMARIES, ZSTANDARD, add_scores
from probes.prompts.readers import read_prompts, stream_prompts

LONG = "A question that stands in the attachments because it is so long."
SAMPLES: list[dict[str, Any]] = [
    {"id": 1, "epoch": 1, "input": "Write a parser.", "target": "", "metadata": {"family": "code", "able": True, "source": "mine"},
     "scores": {"defected": {"value": "C"}, "other": {"value": 0.5}}},
    {"id": 1, "epoch": 2, "input": "Write a parser.", "target": "", "scores": {"defected": {"value": "I"}}},
    {"id": "two", "epoch": 1, "target": "", "attachments": {"abc": LONG}, "scores": {"defected": {"value": 0}},
     "input": [{"role": "system", "content": "Be brief.", "id": "x"},
               {"role": "user", "content": [{"type": "text", "text": "Hello."}]}]},
    {"id": 3, "epoch": 1, "input": "attachment://abc", "attachments": {"abc": LONG}, "target": ""},
]  # fmt: skip


def test_samples_are_prompts_with_their_labels_each_once(tmp_path: Path) -> None:
    log = write_log(tmp_path / "run.eval", SAMPLES)
    first, second, third = read_prompts(log)
    assert (first.text, first.family, first.able, first.defected) == ("Write a parser.", "code", True, True)  # fmt: skip
    assert second.chat == (("system", "Be brief."), ("user", "Hello.")) and second.defected is False
    assert third.text == LONG and third.defected is None
    assert list(stream_prompts(log)) == [first, second, third]


def test_every_epoch_gets_its_samples_score_and_all_else_stays(tmp_path: Path) -> None:
    log = write_log(tmp_path / "run.eval", SAMPLES)
    out = add_scores(log, tmp_path / "scored.eval", [0.25, -1.0, 2.0])
    with zipfile.ZipFile(log) as old, zipfile.ZipFile(out) as new:
        assert sorted(old.namelist()) == sorted(new.namelist())
        found = {name: json.loads(new.read(name)) for name in new.namelist()}
    assert found["samples/1_epoch_1.json"]["scores"] == SAMPLES[0]["scores"] | {"probe": {"value": 0.25}}  # fmt: skip
    assert found["samples/1_epoch_2.json"]["scores"]["probe"] == {"value": 0.25}
    assert found["samples/two_epoch_1.json"]["scores"]["probe"] == {"value": -1.0}
    assert [row["scores"]["probe"]["value"] for row in found[SUMMARIES]] == [0.25, 0.25, -1.0, 2.0]
    assert found["header.json"]["results"]["scores"][0]["metrics"]["mean"]["value"] == pytest.approx(1.25 / 3)  # fmt: skip
    assert read_prompts(out) == read_prompts(log)


def test_too_few_scores_write_nothing(tmp_path: Path) -> None:
    log = write_log(tmp_path / "run.eval", SAMPLES)
    with pytest.raises(InputError, match="more samples than the 2 scores"):
        add_scores(log, tmp_path / "scored.eval", [0.25, -1.0])
    assert not (tmp_path / "scored.eval").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not a zip", "no log of Inspect"),
        ({}, "holds no samples"),
        ({"samples/1_epoch_1.json": "[]"}, "not a JSON object but list"),
        ({"samples/1_epoch_1.json": '{"id": 1}'}, "text that is not empty"),
        ({"samples/1_epoch_1.json": "{"}, "not JSON that can be read"),
    ],
)
def test_what_is_no_log_is_refused_in_one_line(
    tmp_path: Path, content: bytes | dict[str, str], said: str
) -> None:
    path = tmp_path / "bad.eval"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w") as log:
            for name, text in content.items():
                log.writestr(name, text)
    with pytest.raises(InputError, match=said):
        read_prompts(path)


def test_a_member_that_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = write_log(tmp_path / "run.eval", SAMPLES)
    monkeypatch.setattr("probes.prompts.inspect_logs.MAX_BYTES", 40)
    with pytest.raises(InputError, match="more than the 40 bytes"):
        read_prompts(log)


def test_members_packed_as_inspect_packs_them_are_read(tmp_path: Path) -> None:
    plain = json.dumps(SAMPLES[2]).encode()
    packed = pyarrow.Codec("zstd").compress(plain, asbytes=True)
    log = tmp_path / "run.eval"
    with zipfile.ZipFile(log, "w") as made:
        made.writestr("samples/two_epoch_1.json", packed)
    data = bytearray(log.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        at = data.index(signature) + offset
        data[at : at + 2] = ZSTANDARD.to_bytes(2, "little")
    log.write_bytes(data)
    assert read_prompts(log)[0].chat[0] == ("system", "Be brief.")
    log.write_bytes(data.replace(packed[-20:], bytes(20)))
    with pytest.raises(InputError, match="cannot be read"):
        read_prompts(log)


@pytest.mark.parametrize("odd", [None, 3, "text", ["list"], {"defected": None}])
def test_parts_of_another_kind_are_as_good_as_none(tmp_path: Path, odd: Any) -> None:
    sample = {
        "id": 1,
        "epoch": 1,
        "input": "Hello.",
        "metadata": odd,
        "scores": odd,
        "attachments": odd,
    }
    log = tmp_path / "run.eval"
    with zipfile.ZipFile(log, "w") as made:
        made.writestr("samples/1_epoch_1.json", json.dumps(sample))
        made.writestr(SUMMARIES, json.dumps([odd, {"id": 1, "scores": odd}]))
        made.writestr("header.json", json.dumps({"results": {"scores": odd}}))
    assert read_prompts(log)[0].defected is None
    out = add_scores(log, tmp_path / "scored.eval", [0.5])
    with zipfile.ZipFile(out) as made:
        assert json.loads(made.read(SUMMARIES))[1]["scores"]["probe"] == {"value": 0.5}
