"""A grid keeps what is finished, goes on after a failure, and says what has no result and why."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fake_cells import RESULT, contents, counting, failing, make_cells, write

from probes.foundation.errors import InputError
from probes.organisms.organism import OrganismRecipe
from probes.runs.engine import EngineConfig, run_cells
from probes.runs.step import Cell, Outcome, Schedule, read_entry

HERE = EngineConfig()


def silent(cell, outcome):
    pass


def run(cells, out, work=write, engine=HERE):
    return run_cells(cells, out, work, engine, silent)


def statuses(outcomes):
    return {name: outcome.status for name, outcome in outcomes.items()}


def test_all_cells_are_made_each_after_those_that_it_needs(tmp_path):
    cells = make_cells()
    log = tmp_path / "log"
    outcomes = run(cells, tmp_path / "grid", counting(log))
    assert set(statuses(outcomes).values()) == {"done"}
    assert log.read_text().split() == [cell.name for cell in cells]
    assert all(outcome.attempts == 1 and not outcome.kept for outcome in outcomes.values())
    assert all(outcome.seconds > 0 for outcome in outcomes.values())


def test_what_is_finished_is_kept_with_the_seconds_that_it_took(tmp_path):
    cells, log = make_cells(), tmp_path / "log"
    first = run(cells[:3], tmp_path / "grid", counting(log))
    log.unlink()
    second = run(cells, tmp_path / "grid", counting(log))
    assert log.read_text().split() == [cell.name for cell in cells[3:]]
    for cell in cells[:3]:
        assert second[cell.name].kept
        assert second[cell.name].seconds == first[cell.name].seconds


def test_a_cell_with_other_inputs_is_made_anew_and_so_is_what_needs_it(tmp_path):
    recipe, log = OrganismRecipe(), tmp_path / "log"

    def grid(sft):
        one = Cell("organisms/one", "organism", recipe)
        two = Cell("organisms/two", "organism", recipe)
        cured = Cell("stages/one/rl", "stage", recipe, "rl", parent=one, settings=sft)
        return [one, two, cured, Cell("measured/one/rl", "measure", recipe, "rl", parent=cured)]

    run(grid(None), tmp_path / "grid", counting(log))
    log.unlink()
    run(grid(HERE), tmp_path / "grid", counting(log))
    assert log.read_text().split() == ["stages/one/rl", "measured/one/rl"]


def test_a_failure_skips_what_needs_it_and_nothing_else_and_is_tried_again(tmp_path):
    cells = make_cells()
    outcomes = run(cells, tmp_path, failing("stages/one/sft_pre"))
    assert statuses(outcomes) == {
        "organisms/base": "done",
        "organisms/one": "done",
        "stages/one/sft_pre": "failed",
        "reversal/one/sft_pre": "skipped",
        "stages/one/rl": "done",
        "organisms/two": "done",
    }
    assert outcomes["stages/one/sft_pre"].reason == "the loss is not finite"
    assert outcomes["reversal/one/sft_pre"].reason == "needs stages/one/sft_pre, which is not there"
    assert not (tmp_path / "stages/one/sft_pre").exists()
    again = run(cells, tmp_path)
    assert set(statuses(again).values()) == {"done"}
    assert again["stages/one/sft_pre"].attempts == 2


def test_skipping_reaches_all_generations(tmp_path):
    outcomes = run(make_cells(), tmp_path, failing("organisms/base"))
    assert statuses(outcomes).pop("organisms/base") == "failed"
    assert list(statuses(outcomes).values()).count("skipped") == 5


def test_a_cell_that_leaves_no_artifact_has_failed(tmp_path):
    outcomes = run(make_cells()[:1], tmp_path, lambda cell, out: None)
    assert outcomes["organisms/base"].status == "failed"
    assert "without an artifact" in outcomes["organisms/base"].reason


def test_a_changed_file_is_a_failure_that_names_it_and_is_not_taken_for_a_result(tmp_path):
    cells = make_cells()
    run(cells, tmp_path)
    (tmp_path / "stages/one/sft_pre" / RESULT).write_text("{}")
    outcomes = run(cells, tmp_path)
    assert outcomes["stages/one/sft_pre"].status == "failed"
    assert RESULT in outcomes["stages/one/sft_pre"].reason
    assert outcomes["reversal/one/sft_pre"].status == "skipped"


def test_a_fault_of_the_program_ends_the_grid(tmp_path):
    def work(cell, out):
        raise KeyError("a fault")

    with pytest.raises(KeyError):
        run(make_cells(), tmp_path, work)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from fake_cells import make_cells, write
from probes.runs.engine import EngineConfig, run_cells

def work(cell, out):
    if cell.name == "stages/one/rl":
        os.kill(os.getpid(), signal.SIGKILL)
    write(cell, out)

run_cells(make_cells(), Path(sys.argv[2]), work, EngineConfig(), lambda cell, outcome: None)
"""


def test_a_killed_grid_goes_on_to_the_same_bytes_and_counts_the_attempt(tmp_path):
    cells = make_cells()
    run(cells, tmp_path / "whole")
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path / "grid")]
    killed = subprocess.run(command, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert killed.returncode == -signal.SIGKILL
    assert read_entry(cells[4], tmp_path / "grid").status == "begun"
    outcomes = run(cells, tmp_path / "grid")
    assert outcomes["stages/one/rl"].attempts == 2
    assert outcomes["stages/one/sft_pre"].kept
    assert contents(tmp_path / "grid", cells) == contents(tmp_path / "whole", cells)


def test_each_cell_gets_the_threads_it_was_promised_and_the_caller_keeps_its_own(tmp_path):
    cells, before = make_cells(), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        run(cells, tmp_path / "one")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    run(cells, tmp_path / "two")
    assert contents(tmp_path / "one", cells) == contents(tmp_path / "two", cells)
    assert b'"threads": 1' in contents(tmp_path / "one", cells)["organisms/base"]


def test_what_no_engine_can_follow_is_refused_with_the_choices(tmp_path):
    with pytest.raises(InputError, match="Choose one of: process, ray"):
        run(make_cells(), tmp_path, engine=EngineConfig(name="slurm"))
    with pytest.raises(InputError, match="--engine ray"):
        run(make_cells(), tmp_path, engine=EngineConfig(workers=2))
    with pytest.raises(InputError, match="at least 1, not 0"):
        run(make_cells(), tmp_path, engine=EngineConfig(threads=0))
    assert not list(tmp_path.iterdir())


def test_a_schedule_refuses_twins_and_cells_out_of_order():
    cells = make_cells()
    with pytest.raises(InputError, match="same name: organisms/base"):
        Schedule([cells[0], cells[0]])
    with pytest.raises(InputError, match="needs organisms/base, which does not come before"):
        Schedule(cells[1:])


def test_a_schedule_offers_what_can_start_now_and_no_more():
    cells = make_cells()
    schedule = Schedule(cells)
    assert schedule.next() is cells[0]
    assert schedule.next() is None
    schedule.end(cells[0], Outcome("done"))
    assert {schedule.next().name, schedule.next().name} == {"organisms/one", "organisms/two"}
    assert schedule.next() is None
