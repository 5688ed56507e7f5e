"""A command killed at any moment and run again ends in the bytes of one that nobody disturbed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent / "kills.py"
FEW = {"evaluate": 1, "probe": 1, "patch": 1}
"""Collections are killed at every file in activations/test_killed.py."""
MANY = {
    "collect": 16, "extension": 10, "evaluate": 14, "probe": 14, "patch": 12, "kinds": 10,
    "examination": 14, "study": 10,
}  # fmt: skip
"""A hundred. "examination": the tiny study after its organisms; "study": from nothing."""


def killed(n_kills: dict[str, int], folder: Path, seed: int) -> dict[str, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, SCRIPT, json.dumps(n_kills), str(seed), folder],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    reports = map(json.loads, done.stdout.splitlines())
    return {str(report["scenario"]): report for report in reports}


def check(found: dict[str, dict[str, Any]], n_kills: dict[str, int]) -> None:
    assert {name: report["kills"] for name, report in found.items()} == n_kills
    assert {name: report["apart"] for name, report in found.items()} == {
        name: [] for name in n_kills
    }
    assert all(report["files"] for report in found.values())


@pytest.mark.timeout(1500)
def test_a_few_kills(tmp_path: Path) -> None:
    check(killed(FEW, tmp_path, 0), FEW)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_hundred_kills(tmp_path: Path) -> None:
    """Some must have met work half done, or the test would have tested nothing."""
    found = killed(MANY, tmp_path, 1)
    check(found, MANY)
    assert all(report["met"] for report in found.values()), found
