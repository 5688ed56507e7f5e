"""A training state is data from a disk: it is read without running anything, or refused in one line."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch

from probes.foundation.errors import IntegrityError
from probes.organisms.resume import MARKER, _inventory, latest_state


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(Path(os.environ["EVIL"])),)


def state(folder: Path, step: int = 4, **files: bytes) -> Path:
    place = folder / f"checkpoint-{step}"
    place.mkdir(parents=True)
    (place / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    torch.save({"state": {0: torch.zeros(2)}}, place / "optimizer.pt")
    for name, data in files.items():
        (place / name.replace("_", ".", 1)).write_bytes(data)
    (place / MARKER).write_text(_inventory(place))
    return place


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("optimizer.pt", None),
        ("scheduler.pt", b"\x80\x04N."[:2]),
        ("rng_state.pth", b""),
        ("scaler.pt", b"PK\x03\x04 not a zip"),
        ("trainer_state.json", b"{"),
        ("trainer_state.json", b'{"unknown": 1}'),
        ("trainer_state.json", b"[]"),
    ],
)
def test_what_torch_refuses_is_one_line_without_bad_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes | None
) -> None:
    monkeypatch.setenv("EVIL", str(tmp_path / "evil"))
    place = state(tmp_path / "scratch")
    (place / name).write_bytes(pickle.dumps(Evil()) if data is None else data)
    (place / MARKER).write_text(_inventory(place))
    with pytest.raises(
        IntegrityError, match=r"checkpoint-4 is a training state.*Delete it"
    ) as caught:
        latest_state(tmp_path / "scratch")
    said = str(caught.value)
    assert "\n" not in said and "weights_only" not in said
    assert not (tmp_path / "evil").exists()


def test_odd_names_are_no_states_and_links_are_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine.txt").write_text("mine")
    scratch = tmp_path / "scratch"
    good = state(scratch)
    (scratch / "checkpoint-abc").mkdir()
    (scratch / "checkpoint-9").write_text("a file")
    (scratch / "checkpoint-8").mkdir()
    assert latest_state(scratch) == good
    assert sorted(p.name for p in scratch.iterdir()) == ["checkpoint-4", "checkpoint-abc"]
    (scratch / "checkpoint-12").symlink_to(outside)
    with pytest.raises(IntegrityError, match="checkpoint-12 is a link"):
        latest_state(scratch)
    (tmp_path / "linked").symlink_to(scratch)
    with pytest.raises(IntegrityError, match="linked is a link"):
        latest_state(tmp_path / "linked")
    assert (outside / "mine.txt").read_text() == "mine"
