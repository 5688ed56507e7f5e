"""A damaged store is mended: exactly the damaged files are made again, to the recorded bytes."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from random_llama import make_checkpoint

from probes.activations.collect import collect
from probes.activations.format import read_manifest
from probes.activations.generation import collect_generated
from probes.activations.maintenance import repair as rebuilding
from probes.activations.maintenance import repair as repairing
from probes.activations.maintenance.repair import repair
from probes.activations.maintenance.verification import check
from probes.activations.store import ActivationStore
from probes.behaviour.evaluate import SamplingConfig
from probes.foundation.errors import InputError
from probes.models.loading import load

SITES = ["resid_post.0", "resid_post.1"]


@pytest.fixture(scope="module", params=["all", "mean:prompt"])
def finished(request, model, prompts, tmp_path_factory) -> Path:
    """Two parts, several groups of two shards each, as further sites came later."""
    path = tmp_path_factory.mktemp("finished") / "store"
    settings = {"positions": request.param, "shard_tokens": 150, "token_budget": 100}
    collect(model, prompts[:8], path, sites=SITES[:1], **settings)
    collect(model, prompts, path, sites=SITES, **settings)
    return path


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "store"))


def content(path: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in path.iterdir()}


def times(path: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in path.iterdir()}


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


@pytest.fixture
def computed(monkeypatch) -> list[tuple[str, ...]]:
    """The sites of every job that a repair computes."""
    jobs = []
    compute = repairing.compute

    def counted(model, job):
        jobs.append(job.sites)
        return compute(model, job)

    monkeypatch.setattr(repairing, "compute", counted)
    return jobs


def test_damaged_shards_come_back_byte_for_byte_and_nothing_else_is_touched(
    folder, model, computed
):
    whole = content(folder)
    groups = read_manifest(folder).groups
    flipped, cut, missing = groups[0].shards[1], groups[1].shards[0], groups[-1].shards[0]
    flip(folder / flipped.file)
    (folder / cut.file).write_bytes((folder / cut.file).read_bytes()[:100])
    (folder / missing.file).unlink()
    damaged = {flipped.file, cut.file, missing.file}
    before = times(folder)
    done = repair(folder, model)
    assert content(folder) == whole
    assert {each.holding.record.file for each in done.restored} == damaged
    assert (done.remade, done.left) == ((), ())
    assert {name for name, when in times(folder).items() if when != before.get(name)} == damaged
    assert computed == [flipped.sites, cut.sites, missing.sites]
    ActivationStore.open(folder).verify()


def test_a_whole_store_is_left_as_it_is(folder, model, computed):
    before = times(folder)
    done = repair(folder, model)
    assert done.summary.endswith("nothing is damaged")
    assert (times(folder), computed) == (before, [])


def test_another_model_is_refused_before_anything_is_written(folder, checkpoint, tmp_path):
    (folder / read_manifest(folder).groups[0].shards[0].file).unlink()
    before = times(folder)
    other = load(make_checkpoint(tmp_path / "other", seed=1))
    with pytest.raises(InputError, match="weights_digest: the store's") as refused:
        repair(folder, other)
    assert other.weights_digest in str(refused.value)
    with pytest.raises(
        InputError, match="compute_dtype: the store's float32, the model's bfloat16"
    ):
        repair(folder, load(checkpoint, dtype=torch.bfloat16))
    path = Path(shutil.copytree(checkpoint, tmp_path / "changed"))
    settings = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**settings, "rms_norm_eps": 1e-3}))
    with pytest.raises(InputError, match="config_digest: the store's"):
        repair(folder, load(path))
    assert times(folder) == before


def test_other_bytes_get_a_new_record_and_their_maker(folder, model, monkeypatch):
    """Another machine rounds otherwise: planted as a last bit that differs."""
    before = read_manifest(folder)
    lost = before.groups[0].shards[0]
    opened = ActivationStore.open(folder)
    rows, key = opened.rows(lost.sites[0]), opened.key
    (folder / lost.file).unlink()
    compute, make_maker = repairing.compute, repairing.make_maker

    def rounded(model, job):
        return {name: torch.nextafter(v, v + 1) for name, v in compute(model, job).items()}

    monkeypatch.setattr(repairing, "compute", rounded)
    monkeypatch.setattr(
        repairing,
        "make_maker",
        lambda *given: make_maker(*given).model_copy(update={"device": "other"}),
    )
    done = repair(folder, model)
    assert [each.holding.record.file for each in done.remade] == [lost.file]
    assert "new digests" in done.summary
    store = ActivationStore.open(folder).verify()
    record = store.manifest.groups[0].shards[0]
    assert record.sha256 != lost.sha256
    assert store.manifest.makers[record.maker].device == "other"
    assert store.manifest.makers[record.maker].token_budget == 100
    assert store.key == key
    assert [s for g in store.manifest.groups for s in g.shards][1:] == [
        s for g in before.groups for s in g.shards
    ][1:]
    np.testing.assert_allclose(store.rows(lost.sites[0]), rows, rtol=1e-6)
    assert not np.array_equal(store.rows(lost.sites[0]), rows)


def test_the_threads_of_the_maker_are_used_and_given_back(folder, model, monkeypatch):
    manifest = read_manifest(folder)
    assert {maker.n_threads for maker in manifest.makers} == {1}
    (folder / manifest.groups[0].shards[0].file).unlink()
    seen = []
    compute = repairing.compute
    monkeypatch.setattr(
        repairing,
        "compute",
        lambda *given: seen.append(torch.get_num_threads()) or compute(*given),
    )
    torch.set_num_threads(2)
    try:
        repair(folder, model)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert seen == [1]
    assert check(folder).is_whole


def test_the_index_follows_from_labels_and_layouts(folder, model):
    whole = content(folder)
    manifest = read_manifest(folder)
    for part in manifest.parts:
        flip(folder / part.index.file)
    done = repair(folder, model)
    assert len(done.restored) == 2
    assert content(folder) == whole


def test_what_needs_the_prompts_is_named_and_made_again_from_them(folder, model, prompts):
    whole = content(folder)
    manifest = read_manifest(folder)
    first, second = manifest.parts
    layout, shard = first.groups[0].layout, first.groups[0].shards[0]
    for record in (layout, shard, second.prompts, second.index):
        (folder / record.file).unlink()
    done = repair(folder, model)
    faults = {each.holding.record.file: each.fault for each in done.left}
    assert faults.keys() == {layout.file, shard.file, second.prompts.file, second.index.file}
    assert "follows from the prompts" in faults[layout.file]
    assert f"its layout {layout.file} is damaged" in faults[shard.file]
    done = repair(folder, model, prompts[:9])
    assert {each.holding.record.file for each in done.left} == {
        second.prompts.file,
        second.index.file,
    }
    assert "3 of its 4 sequences are not among the given prompts" in done.left[0].fault
    done = repair(folder, model, prompts)
    assert done.is_whole
    assert content(folder) == whole


def test_all_tables_of_a_part_at_once_are_too_much(folder, model, prompts):
    part = read_manifest(folder).parts[0]
    for record in (part.prompts, part.index, part.groups[0].layout):
        (folder / record.file).unlink()
    done = repair(folder, model, prompts)
    assert {each.holding.record.file for each in done.left} >= {
        part.prompts.file,
        part.index.file,
        part.groups[0].layout.file,
    }
    assert "all damaged" in repr(done)


def test_an_order_that_nothing_proves_is_refused(folder, model, prompts):
    whole = content(folder)
    part = read_manifest(folder).parts[0]
    (folder / part.prompts.file).unlink()
    (folder / part.index.file).unlink()
    done = repair(folder, model, prompts[::-1])
    assert len(done.left) == 2
    assert "in another order than that of the collection" in repr(done)
    assert repair(folder, model, prompts).is_whole
    assert content(folder) == whole


def test_a_layout_that_comes_out_otherwise_is_not_written(folder, model, prompts, monkeypatch):
    layout = read_manifest(folder).groups[0].layout
    (folder / layout.file).unlink()
    lay_out = rebuilding.lay_out
    monkeypatch.setattr(
        rebuilding, "lay_out", lambda sequences, *rest: lay_out(sequences[::-1], *rest)
    )
    done = repair(folder, model, prompts)
    assert "what was made has sha256" in done.left[0].fault
    assert not (folder / layout.file).exists()


def test_another_tokenizer_gives_no_layouts(folder, model, prompts, tmp_path, checkpoint):
    other = Path(shutil.copytree(checkpoint, tmp_path / "model"))
    file = other / "tokenizer_config.json"
    file.write_text(file.read_text().replace("{", '{"chat_template": "{{ messages }}",', 1))
    (folder / read_manifest(folder).parts[0].prompts.file).unlink()
    with pytest.raises(InputError, match="into other tokens: template_digest"):
        repair(folder, load(other), prompts)
    assert repair(folder, model, prompts).is_whole


def test_completions_are_part_of_what_is_rebuilt(model, prompts, tmp_path):
    answers = [f" answer {i}" for i in range(len(prompts))]
    path = tmp_path / "store"
    collect(model, prompts, path, completions=answers, positions="answer", shard_tokens=150)
    whole = content(path)
    part = read_manifest(path).parts[0]
    flip(path / part.index.file)
    assert repair(path, model).is_whole
    (path / part.groups[0].layout.file).unlink()
    (path / part.prompts.file).unlink()
    assert not repair(path, model, prompts).is_whole
    assert repair(path, model, prompts, answers).is_whole
    assert content(path) == whole


def test_what_a_model_wrote_is_read_again_up_to_rounding(model, prompts, tmp_path):
    """Nothing but the store holds these tokens; its index follows from its layouts."""
    path = tmp_path / "store"
    sampling = SamplingConfig(max_new_tokens=5, n=2, seed=3)
    before = collect_generated(model, prompts[:4], path, sampling, sites=SITES)
    rows, whole = before.rows(SITES[0]), content(path)
    part = read_manifest(path).parts[0]
    flip(path / part.index.file)
    flip(path / part.groups[0].shards[0].file)
    done = repair(path, model)
    assert part.index.file in {each.holding.record.file for each in done.restored}
    assert content(path)[part.index.file] == whole[part.index.file]
    assert done.is_whole
    np.testing.assert_allclose(
        ActivationStore.open(path).verify().rows(SITES[0]), rows, rtol=1e-4, atol=1e-5
    )
    (path / part.prompts.file).unlink()
    assert "what the model drew" in repr(repair(path, model, prompts[:4]))
