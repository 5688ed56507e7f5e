"""The training benchmark compares like with like: the same weights at the end, ratios judged right."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from probes.benchmarks import training
from probes.benchmarks.result import Benchmark, Seconds
from probes.benchmarks.training import BARE, LOOP, TABLE, WHOLE, bench_train, check_same
from probes.foundation.errors import StageError
from probes.foundation.tables import read_table
from shell import run_cli


def test_a_smoke_run_has_every_row_and_judges_nothing(tmp_path: Path) -> None:
    out = run_cli(["bench", "train", "--out", str(tmp_path), "--quick"])
    assert out.code == 0, out.err
    table = read_table(tmp_path / TABLE)
    assert table["contender"].tolist() == [BARE, LOOP, WHOLE]
    assert table["asked"].fillna("").tolist() == ["", ">= 0.909091", ""]
    assert table["reached"].isna().all()
    assert (table["ratio"] > 0).tolist() == [False, True, True]
    assert sorted(file.name for file in tmp_path.iterdir()) == [TABLE, f"{TABLE}.provenance.json"]
    assert "smoke run" in out.out
    assert BARE in out.out


def timed(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float], tmp_path: Path) -> Benchmark:
    """The benchmark's result if the contenders had taken so long."""

    def taken(jobs: dict[str, Any], *_: Any, **__: Any) -> dict[str, Seconds]:
        assert list(jobs) == list(seconds)
        return {name: Seconds((value,)) for name, value in seconds.items()}

    monkeypatch.setattr(training, "take_turns", taken)
    return bench_train(tmp_path, size="0.2M", steps=2)


@pytest.mark.parametrize(("took", "reached"), [(1.09, "yes"), (1.11, "no")])
def test_within_a_tenth_is_within_a_tenth(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, took: float, reached: str
) -> None:
    found = timed(monkeypatch, {BARE: 1.0, LOOP: took, WHOLE: 9.0}, tmp_path).table
    assert found["reached"].tolist() == ["", reached, ""]
    assert found["ratio"].iloc[1] == pytest.approx(1 / took)


def test_a_contender_that_trains_otherwise_is_not_compared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bare = training.bare_loop

    def other(model: Any, recipe: Any, examples: Any, pad_id: int) -> Any:
        settings = recipe.training.model_copy(update={"learning_rate": 4e-3})
        return bare(model, recipe.model_copy(update={"training": settings}), examples, pad_id)

    monkeypatch.setattr(training, "bare_loop", other)
    with pytest.raises(StageError, match="trained another model than the bare loop"):
        bench_train(tmp_path, quick=True)
    assert list(tmp_path.iterdir()) == []


def test_weights_apart_and_weights_that_are_no_numbers_are_found() -> None:
    weights = {"a": torch.ones(3), "b": torch.full((2,), 2.0)}
    check_same(weights, copy.deepcopy(weights), "twin")
    for spoilt in (2.01, float("nan")):
        with pytest.raises(StageError, match=r"twin trained another model .* b differs"):
            check_same(weights, weights | {"b": torch.tensor([2.0, spoilt])}, "twin")
