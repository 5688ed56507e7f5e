"""Ray's workers make the very artifacts that this process makes, and a killed one costs an attempt."""

import os
import signal

import pytest
import ray
import torch
from fake_cells import contents, failing, make_cells, write

from probes.foundation.errors import InputError
from probes.runs.engine import EngineConfig, run_cells

RAY = EngineConfig(name="ray", workers=2)


@pytest.fixture
def here():
    """The functions of the tests' own module, as workers need them: by value."""
    import fake_cells
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(fake_cells)
    yield
    cloudpickle.unregister_pickle_by_value(fake_cells)


def silent(cell, outcome):
    pass


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_the_engine(cluster, here, tmp_path):
    cells, before = make_cells(), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        run_cells(cells, tmp_path / "process", write, EngineConfig(), silent)
    finally:
        torch.set_num_threads(before)
    outcomes = run_cells(cells, tmp_path / "ray", write, RAY, silent)
    assert {outcome.status for outcome in outcomes.values()} == {"done"}
    assert contents(tmp_path / "ray", cells) == contents(tmp_path / "process", cells)
    assert ray.is_initialized()


@pytest.mark.slow
def test_a_killed_workers_cell_is_tried_again(cluster, here, tmp_path):
    cells = make_cells()
    mark = tmp_path / "mark"

    def work(cell, out):
        if cell.name == "stages/one/rl" and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        write(cell, out)

    outcomes = run_cells(cells, tmp_path / "grid", work, RAY, silent)
    assert mark.exists()
    assert {outcome.status for outcome in outcomes.values()} == {"done"}
    attempts = {name: outcome.attempts for name, outcome in outcomes.items()}
    assert attempts.pop("stages/one/rl") == 2
    assert set(attempts.values()) == {1}
    run_cells(cells, tmp_path / "whole", write, EngineConfig(), silent)
    assert contents(tmp_path / "grid", cells) == contents(tmp_path / "whole", cells)


@pytest.mark.slow
def test_a_cell_that_every_worker_dies_of_has_failed_and_the_others_go_on(cluster, here, tmp_path):
    def work(cell, out):
        if cell.name == "stages/one/sft_pre":
            os.kill(os.getpid(), signal.SIGKILL)
        write(cell, out)

    engine = RAY.model_copy(update={"retries": 1})
    outcomes = run_cells(make_cells(), tmp_path, work, engine, silent)
    died = outcomes["stages/one/sft_pre"]
    assert (died.status, died.attempts) == ("failed", 2)
    assert "2 workers died of it" in died.reason
    assert outcomes["reversal/one/sft_pre"].status == "skipped"
    assert outcomes["stages/one/rl"].status == outcomes["organisms/two"].status == "done"


def test_a_failure_and_a_fault_come_back_as_what_they_are(cluster, here, tmp_path):
    outcomes = run_cells(make_cells(), tmp_path / "a", failing("stages/one/rl"), RAY, silent)
    assert outcomes["stages/one/rl"].reason == "the loss is not finite"

    def faulty(cell, out):
        raise KeyError("a fault")

    with pytest.raises(KeyError):
        run_cells(make_cells(), tmp_path / "b", faulty, RAY, silent)


def test_cells_that_fit_no_machine_are_refused(cluster, tmp_path):
    engine = RAY.model_copy(update={"gpus": 0.5})
    with pytest.raises(InputError, match=r"1 CPUs and 0\.5 GPUs, and no machine"):
        run_cells(make_cells(), tmp_path, write, engine, silent)
