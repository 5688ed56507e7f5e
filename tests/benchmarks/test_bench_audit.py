"""The audit benchmark compares equal scores, and refuses others."""

from pathlib import Path

import numpy as np
import pytest

from probes.benchmarks.auditing import LIMIT, LOOP, OURS, TABLE, bench_audit, check_same
from probes.foundation.errors import StageError


def test_a_smoke_run_has_every_row_and_judges_nothing(tmp_path: Path) -> None:
    found = bench_audit(tmp_path, quick=True).table
    assert found["contender"].tolist() == [LOOP, OURS, OURS]
    assert found["against"].tolist() == ["", LOOP, LIMIT]
    assert found["reached"].eq("").all()
    assert (tmp_path / TABLE).is_file()


def test_other_scores_are_not_compared() -> None:
    with pytest.raises(StageError, match="differ"):
        check_same(np.zeros(3), np.array([0.0, 0.1, 0.0]))
