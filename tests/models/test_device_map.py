"""A model that is spread over devices and the disk is read with the numbers of a whole one."""

import gc
import tempfile
from pathlib import Path

import pytest
import torch

from probes.foundation.errors import InputError
from probes.models import forward
from probes.models.anatomy import blocks
from probes.models.encoding import Batch, pad
from probes.models.hooks import recording
from probes.models.loading import Model, load
from probes.models.placement import is_spread
from probes.models.sites import residual_sites

SEQUENCES = [list(range(5, 25)), list(range(40, 47)), [7]]


@pytest.fixture
def batch() -> Batch:
    return pad(SEQUENCES, pad_id=1, side="left")


def leaves(model: Model) -> list[str]:
    """Names of the modules without children outside the blocks, then of the blocks."""
    inside = {id(module) for block in blocks(model.hf) for module in block.modules()}
    outer = [
        name
        for name, module in model.hf.named_modules()
        if id(module) not in inside and not list(module.children())
    ]
    return outer + [
        name
        for name, module in model.hf.named_modules()
        if any(module is block for block in blocks(model.hf))
    ]


def some_on_disk(model: Model) -> dict[str, str]:
    """The first and the last block on disk, the rest in memory."""
    names = leaves(model)
    return {name: "disk" if name in (names[-1], names[-3]) else "cpu" for name in names}


def read(model: Model, batch: Batch, **options: bool) -> list[torch.Tensor]:
    sites = residual_sites(model.n_layers)
    with torch.no_grad(), recording(model.hf, sites, **options) as cache:
        forward.trunk(model.hf, batch)
    return [cache[site] for site in sites]


def test_every_architecture_is_read_as_from_one_device(model, checkpoints, batch):
    spread = load(checkpoints[model.name], device_map=some_on_disk(model))
    assert {parameter.device.type for parameter in spread.hf.parameters()} == {"cpu", "meta"}
    assert spread.weights_digest == model.weights_digest
    assert spread.device == torch.device("cpu")
    assert spread.dtype == torch.float32
    expected = read(model, batch)
    for options in ({}, {"stop": True}, {}):  # a forward that was cut short leaves no trace
        for seen, wanted in zip(read(spread, batch, **options), expected, strict=True):
            torch.testing.assert_close(seen, wanted, rtol=0, atol=1e-6)
    with torch.no_grad():
        for compute in (forward.logits, forward.trunk):
            torch.testing.assert_close(
                compute(spread.hf, batch), compute(model.hf, batch), rtol=0, atol=1e-6
            )


@pytest.mark.parametrize(
    "name", ["llama", "gpt2"]
)  # gpt2 shares its embedding with the unembedding
def test_even_the_embedding_may_lie_on_disk(loaded, checkpoints, batch, name):
    model = loaded[name]
    spread = load(checkpoints[name], device_map=dict.fromkeys(leaves(model), "disk"))
    assert {parameter.device.type for parameter in spread.hf.parameters()} == {"meta"}
    assert spread.device == torch.device("cpu")
    with torch.no_grad():
        torch.testing.assert_close(
            forward.logits(spread.hf, batch), forward.logits(model.hf, batch), rtol=0, atol=1e-6
        )


def test_a_strategy_places_the_whole_model(llama, checkpoints, batch):
    for strategy in ("auto", "balanced", "sequential"):
        placed = load(checkpoints["llama"], device_map=strategy)
        with torch.no_grad():
            seen = forward.logits(placed.hf, batch).cpu()
            torch.testing.assert_close(seen, forward.logits(llama.hf, batch))


def test_no_bridge_for_a_model_in_parts(llama, checkpoints):
    assert llama.no_bridge is None
    spread = load(checkpoints["llama"], device_map=some_on_disk(llama))
    with pytest.raises(InputError, match=r"whole model on one device.*disk.*not checked"):
        spread.bridge()
    assert "device=cpu" in repr(spread)
    together = load(checkpoints["llama"], device_map={"": "cpu"})
    assert not is_spread(together.hf)
    assert together.no_bridge is None


def test_offloaded_weights_live_as_long_as_the_model(
    loaded, checkpoints, batch, tmp_path, monkeypatch
):
    """Mixtral's experts are fused on loading, so that they differ from those in the files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spread = load(checkpoints["mixtral"], device_map=some_on_disk(loaded["mixtral"]))
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert files
    assert {file.suffix for file in files} == {".safetensors"}
    with torch.no_grad():
        forward.logits(spread.hf, batch)
    del spread
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_after_a_load_that_failed(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(InputError):
        load(checkpoints["mixtral"], device_map={"model": "disk"})
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_maps_that_cannot_be_followed_are_refused(checkpoints, llama):
    def refused(device_map, match, **options):
        with pytest.raises(InputError, match=match):
            load(checkpoints["llama"], device_map=device_map, **options)

    refused("auto", "say two things", device="meta")
    refused("fastest", "unknown device_map 'fastest'.*balanced")
    refused({"": "cuda:77"}, "unknown device in the device map 'cuda:77'.*disk")
    refused({"": 77}, "unknown device in the device map 77")
    refused({}, "is empty")
    refused({"": "cpu", "model.layers.0": "disk"}, "names '', which")
    whole = some_on_disk(llama)
    refused({**whole, "model.layers.9": "cpu"}, r"names 'model\.layers\.9'.*its modules")
    refused({"model.layers.0": "cpu", "model.norm": "cpu"}, r"no place for model\.embed_tokens")


def test_the_checkpoint_is_only_read(llama, llama_dir: Path, batch):
    before = {file.name: file.read_bytes() for file in llama_dir.iterdir()}
    spread = load(llama_dir, device_map=some_on_disk(llama))
    read(spread, batch)
    assert {file.name: file.read_bytes() for file in llama_dir.iterdir()} == before


def test_a_plain_load_makes_no_temporary_folder(checkpoints, monkeypatch):
    """Nothing could remove it were the process killed in the middle."""
    monkeypatch.delattr(tempfile, "TemporaryDirectory")
    load(checkpoints["llama"])
    with pytest.raises(AttributeError):
        load(checkpoints["llama"], device_map="auto")
