"""The chat benchmark compares like with like, and does not compare what differs."""

from pathlib import Path

import pytest

from probes.benchmarks import chat
from probes.benchmarks.result import Seconds
from probes.foundation.errors import StageError


def test_a_smoke_run_has_every_job_and_judges_nothing(tmp_path: Path) -> None:
    table = chat.bench_chat(tmp_path, quick=True).table
    ours = table[table["contender"] == chat.OURS]
    assert ours["job"].tolist() == ["write", "teach by LoRA", "collect, last token of all layers"]
    assert (ours["ratio"] > 0).all()
    assert (ours["asked"] == ">= 0.9").all()
    assert (table["reached"] == "").all()
    speeds = table[table["metric"] == "tokens per second"]
    assert speeds["contender"].tolist() == ["1 thread, float32", "1 thread, bfloat16"]
    assert (table.loc[table["contender"] == "bfloat16", "value"] > 0).all()


@pytest.mark.parametrize(("took", "reached"), [(1.1, "yes"), (1.12, "no")])
def test_processor_time_is_what_is_judged(took: float, reached: str) -> None:
    seconds = {"bare": Seconds((9.0,), (1.0,)), chat.OURS: Seconds((1.0,), (took,))}
    rows = list(chat._against("write", seconds, 10, "tokens", "new tokens", True))
    assert [row["reached"] for row in rows] == ["", reached]


def test_other_answers_are_not_compared() -> None:
    bare = ["one two three"] * 40
    chat.check_answers(bare, [*bare[:39], "one two"])
    with pytest.raises(StageError, match="3 of 40 answers are not those of the bare loop"):
        chat.check_answers(bare, [*bare[:37], "", "two", "other"])
