"""The probing benchmark compares fits that are equal, and judges the asked ratio alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes.benchmarks import probing
from probes.benchmarks.probing import LIMIT, OURS, TABLE, bench_probe, check_equal
from probes.benchmarks.result import Seconds
from probes.foundation.errors import StageError
from probes.foundation.tables import read_table
from shell import run_cli


def test_a_smoke_run_has_every_row_and_judges_nothing(tmp_path: Path) -> None:
    out = run_cli(["bench", "probe", "--out", str(tmp_path), "--quick"])
    assert out.code == 0, out.err
    table = read_table(tmp_path / TABLE)
    first = table[table["job"] == table["job"].iloc[0]]
    busy, first = (first[(first["metric"] == "CPU time") == kind] for kind in (True, False))
    assert len(busy) == 3 and (busy["value"] > 0).all() and busy["ratio"].notna().sum() == 1
    assert first["contender"].iloc[0] == LIMIT
    assert sum(name.startswith("scikit-learn") for name in first["contender"]) == 2
    assert (first["contender"] == OURS).sum() == 2
    assert table["reached"].isna().all()
    assert "smoke run" in out.out
    assert sorted(file.name for file in tmp_path.iterdir()) == [TABLE, f"{TABLE}.provenance.json"]


@pytest.mark.parametrize(("took", "reached"), [(0.99, "yes"), (1.01, "no")])
def test_ten_times_the_faster_peer_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, took: float, reached: str
) -> None:
    def taken(jobs: dict[str, Any], *_: Any, **__: Any) -> dict[str, Seconds]:
        each = {LIMIT: 0.1, OURS: took}
        each |= {name: 10.0 if "newton" in name else 20.0 for name in jobs if name not in each}
        return {name: Seconds((value,)) for name, value in each.items()}

    small = probing.workloads(quick=True)
    monkeypatch.setattr(probing, "take_turns", taken)
    monkeypatch.setattr(probing, "workloads", lambda quick: small[:1])
    table = bench_probe(tmp_path).table
    asked = table[table["asked"] != ""]
    assert asked["reached"].tolist() == [reached]
    assert asked["against"].tolist() == ["scikit-learn in a loop, newton-cg"]
    assert asked["ratio"].iloc[0] == pytest.approx(10 / took)


def test_a_contender_with_other_coefficients_is_not_compared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain = probing.ours
    monkeypatch.setattr(probing, "ours", lambda *given: plain(*given) * (1 + 2e-4))
    with pytest.raises(StageError, match="other coefficients"):
        bench_probe(tmp_path, quick=True)
    assert list(tmp_path.iterdir()) == []


def test_coefficients_apart_and_no_numbers_are_found() -> None:
    coef = np.ones((2, 3, 4))
    check_equal(coef, coef * (1 + 1e-6), "twin")
    for spoilt in (1.001, float("nan")):
        other = coef.copy()
        other[1, 2, 3] = spoilt
        with pytest.raises(StageError, match="twin found other coefficients"):
            check_equal(coef, other, "twin")
