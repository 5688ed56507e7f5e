"""The operations that a grid cannot avoid are those that the engine does, counted by torch itself."""

import dataclasses
from pathlib import Path

import pytest
from torch.utils.flop_counter import FlopCounterMode

from probes.benchmarks import patching
from probes.benchmarks.patching import GRIDS, PatchWork, _cells, _model, _plain, _work, ours
from probes.patching.engine.scoring import Scorer


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> PatchWork:
    model = _model("tiny", Path(), tmp_path_factory.mktemp("tiny"), "cpu", 0)
    return _work("tiny", model, 2, False, 0)


@pytest.fixture(autouse=True)
def matrices_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU torch counts no attention scores."""
    costs = patching.costs
    monkeypatch.setattr(
        patching, "costs", lambda model: dataclasses.replace(costs(model), score=0.0)
    )


# By position the engine runs queries, keys and values of the patched block from the patch on, not of one token.
@pytest.mark.parametrize(("grid", "more"), zip(GRIDS, (1.3, 1.1), strict=True))
def test_the_engine_does_what_cannot_be_avoided_and_hardly_more(
    work: PatchWork, grid: str, more: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = {"run": 0.0, "prepare": 0.0}
    counter = FlopCounterMode(display=False)

    def count(name: str) -> None:
        plain = getattr(Scorer, name)

        def counting(self, *given, **named):
            before = counter.get_total_flops()
            found = plain(self, *given, **named)
            counted[name] += (counter.get_total_flops() - before) / 2
            return found

        monkeypatch.setattr(Scorer, name, counting)

    count("run")
    count("prepare")
    with counter:
        ours(work, grid)
    cells, _ = _cells(work, grid)
    needed = patching.needed_operations(work, cells)
    assert 1.0 <= counted["run"] / needed < more
    assert counted["prepare"] == pytest.approx(patching.whole_operations(work), rel=1e-6)


def test_a_full_run_per_cell_is_what_a_plain_pass_counts(work: PatchWork) -> None:
    with FlopCounterMode(display=False) as counter:
        _plain(work)
    assert counter.get_total_flops() / 2 == pytest.approx(patching.full_operations(work, 4))
