"""Of what an interrupted collection left, only what is proved whole and equally made is kept."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from probes.activations import publication
from probes.activations.collect import collect
from probes.activations.compute import compute
from probes.activations.store import ActivationStore
from probes.foundation.errors import InputError, StageError
from probes.models.loading import load

N_SHARDS = 4


def counting(computed: list[str]):
    def engine(model, tasks, maker):
        for task in tasks:
            computed.append(task.file)
            yield task, compute(model, task.job())

    return engine


def interrupted_collection(model, prompts, path: Path, **settings) -> list[Path]:
    """Stop as Ctrl-C would when every shard but no manifest is there; returns the sidecars."""

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publication, "publish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            collect(model, prompts, path, shard_tokens=150, **settings)
    sidecars = sorted(path.glob("*.finished.json"))
    assert len(sidecars) == N_SHARDS
    with pytest.raises(InputError, match="was interrupted; run the same collection again"):
        ActivationStore.open(path)
    return sidecars


@pytest.fixture
def whole(model, prompts, tmp_path) -> Path:
    return collect(model, prompts, tmp_path / "whole", shard_tokens=150).path


def finish(model, prompts, path: Path, whole: Path) -> int:
    """Go on; how many shards were computed. The result has the bytes of an uninterrupted run."""
    computed: list[str] = []
    collect(model, prompts, path, shard_tokens=150, engine=counting(computed))
    files = {file.name for file in whole.iterdir()}
    assert {file.name for file in path.iterdir()} == files
    for name in files - {"provenance.json"}:
        assert (path / name).read_bytes() == (whole / name).read_bytes(), name
    return len(computed)


def test_finished_shards_are_taken_over(model, prompts, tmp_path, whole):
    interrupted_collection(model, prompts, tmp_path / "s")
    assert finish(model, prompts, tmp_path / "s", whole) == 0


def test_shards_whose_bytes_are_not_the_recorded_ones_are_made_again(
    model, prompts, tmp_path, whole
):
    sidecars = interrupted_collection(model, prompts, tmp_path / "s")
    zeros, cut, gone, flipped = (
        each.with_name(each.name.removesuffix(".finished.json")) for each in sidecars
    )
    zeros.write_bytes(bytes(zeros.stat().st_size))
    cut.write_bytes(cut.read_bytes()[:-1])
    gone.unlink()
    data = bytearray(flipped.read_bytes())
    data[-1] ^= 1
    flipped.write_bytes(data)
    assert finish(model, prompts, tmp_path / "s", whole) == N_SHARDS


@pytest.mark.parametrize("torn", [[b"", b"{", b"\0" * 400], [b"\xff" * 400, b"[]", b"{}"]])
def test_a_torn_sidecar_is_no_sidecar(model, prompts, tmp_path, whole, torn):
    sidecars = interrupted_collection(model, prompts, tmp_path / "s")
    for sidecar, data in zip(sidecars, torn, strict=False):
        sidecar.write_bytes(data)
    assert finish(model, prompts, tmp_path / "s", whole) == len(torn)


def test_a_shard_of_another_maker_is_made_again(model, prompts, tmp_path, whole):
    sidecars = interrupted_collection(model, prompts, tmp_path / "s")
    others = {"versions": {"torch": "0.0"}, "device": "cuda", "n_threads": 7, "token_budget": 9}
    for sidecar, (field, other) in zip(sidecars, others.items(), strict=True):
        finished = json.loads(sidecar.read_text())
        mine = finished["maker"][field]
        finished["maker"][field] = {**mine, **other} if field == "versions" else other
        assert finished["maker"][field] != mine
        sidecar.write_text(json.dumps(finished))
    assert finish(model, prompts, tmp_path / "s", whole) == N_SHARDS


def test_another_token_budget_makes_all_again(model, prompts, tmp_path, whole):
    interrupted_collection(model, prompts, tmp_path / "s", token_budget=60)
    assert finish(model, prompts, tmp_path / "s", whole) == N_SHARDS


def test_a_shard_of_another_name_is_not_taken_over(model, prompts, tmp_path, whole):
    """A sidecar vouches for the shard beside it and for no other."""
    sidecars = interrupted_collection(model, prompts, tmp_path / "s")
    sidecars[0].write_text(sidecars[1].read_text())
    assert finish(model, prompts, tmp_path / "s", whole) == 1


def test_an_attempt_that_failed_leaves_the_place_free(checkpoint, model, prompts, tmp_path):
    path = tmp_path / "s"
    with pytest.raises(InputError, match="do not contain the span"):
        collect(model, prompts, path, positions="task", spans={"task": "absent"})
    with pytest.raises(InputError, match="no prompts"):
        collect(model, [], path)
    large = load(checkpoint)
    with torch.no_grad():
        large.hf.model.embed_tokens.weight.mul_(1e6)
    with pytest.raises(StageError, match="store them in bfloat16 or float32"):
        collect(large, prompts, path, dtype="float16")
    store = collect(model, prompts, path, positions="task", spans={"task": "Please"})
    assert len(store.verify()) == len(prompts)


def test_an_interrupted_collection_is_not_overwritten_by_another(model, prompts, tmp_path, whole):
    interrupted_collection(model, prompts, tmp_path / "s")
    with pytest.raises(InputError, match="differ in dtype: there float32, asked float16"):
        collect(model, prompts, tmp_path / "s", dtype="float16")
    assert finish(model, prompts, tmp_path / "s", whole) == 0


def test_a_prompt_is_named_by_its_number_in_the_whole_list(model, prompts, tmp_path):
    """Whatever of the list the store has already, and whichever piece it is read in."""
    long = dataclasses.replace(prompts[0], text=prompts[0].text + " word" * 300)
    path = tmp_path / "s"
    collect(model, prompts[:6], path, positions="trigger")
    with pytest.raises(InputError, match="the longest is prompt 6 "):
        collect(model, [*prompts[:6], long], path, positions="trigger")
    with pytest.raises(InputError, match="the first is prompt 4: 'nothing'"):
        asked = [*prompts[:4], dataclasses.replace(prompts[0], text="nothing"), prompts[5]]
        collect(model, asked, path, positions="trigger")
    many = [dataclasses.replace(prompts[0], pair=f"p{i}") for i in range(1100)]
    many[1050] = long
    with pytest.raises(InputError, match="the longest is prompt 1050 "):
        collect(model, many, tmp_path / "many")
