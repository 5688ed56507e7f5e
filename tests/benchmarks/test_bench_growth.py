"""Growth is told from runs of several sizes, and what grows faster than its prompts is said to."""

from pathlib import Path

import pytest

from probes.benchmarks import growth
from probes.benchmarks.accelerator import bench_accelerator
from probes.foundation.errors import InputError


@pytest.mark.parametrize(("power", "reached"), [(1.0, "yes"), (1.2, "no")])
def test_the_exponent_is_the_slope_and_is_judged(
    monkeypatch: pytest.MonkeyPatch, power: float, reached: str
) -> None:
    clock = iter(t for n in growth.TIMES for t in (0.0, 2.0 * n**power))
    monkeypatch.setattr(growth.time, "process_time", lambda: next(clock))
    rows = list(growth._grown("a job", "one size", "prompts", lambda _: lambda: None))
    assert rows[-1]["value"] == pytest.approx(power)
    assert rows[-1]["reached"] == reached
    assert [row["value"] for row in rows[:-1:2]] == pytest.approx(
        [2.0 * n**power for n in growth.TIMES]
    )


def test_a_smoke_run_has_every_job(tmp_path: Path) -> None:
    table = growth.bench_growth(tmp_path, quick=True).table
    slopes = table[table["metric"] == "exponent of growth"]
    assert len(slopes) == slopes["job"].nunique() == 5
    assert (slopes["reached"] == "").all()
    assert (table.loc[table["unit"] == "s", "value"] > 0).all()
    assert (table.loc[table["unit"] == "bytes", "value"] > 2**20).all()


def test_an_accelerator_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no CUDA device"):
        bench_accelerator(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_every_part_of_the_accelerator_benchmark_runs_on_a_cpu_in_a_small_size(
    tmp_path: Path,
) -> None:
    table = bench_accelerator(tmp_path, device="cpu", quick=True).table
    jobs = " ".join(table["job"].unique())
    for part in ("tiny: ", "smoke", "layer x head", "organisms by LoRA"):
        assert part in jobs
    assert not (table["reached"].isin(["yes", "no"])).any()
