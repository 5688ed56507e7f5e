"""A store is opened whole and for the right model, or refused with a reason."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from random_llama import make_checkpoint
from safetensors.numpy import load_file

from probes.activations.collect import collect
from probes.activations.store import ActivationStore
from probes.foundation import artifact
from probes.foundation.errors import InputError, IntegrityError, StageError
from probes.models.loading import load


@pytest.fixture(scope="module")
def finished(model, prompts, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "store"
    collect(model, prompts, path, positions="all", shard_prompts=5)
    return path


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(finished, tmp_path / "store"))


def test_reads_what_plain_safetensors_reads(finished):
    store = ActivationStore.open(finished)
    shards = [load_file(finished / record.file) for record in store.manifest.shards]
    expected = np.concatenate([shard["resid_post.1"] for shard in shards])
    np.testing.assert_array_equal(store.rows("resid_post.1"), expected)
    np.testing.assert_array_equal(store.rows("blocks.1.hook_resid_post"), expected)
    ends = np.concatenate([[0], store.prompts["n_tokens"].cumsum()])
    for i in range(store.manifest.n_prompts):
        np.testing.assert_array_equal(
            store.tokens("resid_post.1", i), expected[ends[i] : ends[i + 1]]
        )


def test_other_weights_are_refused_with_both_digests(finished, model, tmp_path):
    assert ActivationStore.open(finished, model.weights_digest).verify()
    other = load(make_checkpoint(tmp_path / "other", seed=1))
    with pytest.raises(InputError) as refused:
        ActivationStore.open(finished, other.weights_digest)
    assert model.weights_digest in str(refused.value)
    assert other.weights_digest in str(refused.value)


def test_a_checkpoint_saved_again_at_the_same_path_is_another_model(checkpoint, prompts, tmp_path):
    """The trap of caches keyed by name: same path, same label, new weights."""
    path = Path(shutil.copytree(checkpoint, tmp_path / "model"))
    store = collect(load(path), prompts, tmp_path / "s")
    make_checkpoint(path, seed=1)
    resaved = load(path)
    with pytest.raises(InputError, match="weights_digest: there"):
        collect(resaved, prompts, tmp_path / "s")
    with pytest.raises(InputError, match="other weights"):
        ActivationStore.open(store.path, resaved.weights_digest)


def test_another_key_is_refused_with_both_keys_and_what_differs(finished, model, prompts):
    before = (finished / "manifest.json").read_bytes()
    key = ActivationStore.open(finished).manifest.key
    with pytest.raises(InputError) as refused:
        collect(model, prompts, finished, positions="last", shard_prompts=5)
    assert key in str(refused.value)
    assert "positions: there all, asked last" in str(refused.value)
    assert "sites" not in str(refused.value)
    with pytest.raises(InputError, match="prompts_digest"):
        collect(model, prompts[1:], finished, positions="all", shard_prompts=5)
    assert (finished / "manifest.json").read_bytes() == before


def test_a_directory_with_other_things_is_left_alone(model, prompts, tmp_path):
    (tmp_path / "thesis.txt").write_text("words")
    with pytest.raises(InputError, match=r"not an activation store and not empty \(thesis.txt\)"):
        collect(model, prompts, tmp_path)
    with pytest.raises(InputError, match="is a file"):
        collect(model, prompts, tmp_path / "thesis.txt")
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_truncated_shard_is_found_on_opening(folder):
    shard = folder / "shard-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=r"shard-00001.safetensors has \d+ bytes"):
        ActivationStore.open(folder)
    shard.unlink()
    with pytest.raises(IntegrityError, match=r"shard-00001.safetensors is missing"):
        ActivationStore.open(folder)


def test_a_flipped_bit_is_found_by_verify_and_by_asking_again(folder, model, prompts):
    shard = folder / "shard-00001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    store = ActivationStore.open(folder)
    with pytest.raises(IntegrityError, match="was changed after it was written"):
        store.verify()
    with pytest.raises(IntegrityError, match="was changed after it was written"):
        collect(model, prompts, folder, positions="all", shard_prompts=5)


def test_an_edited_manifest_is_refused(folder):
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["made_from"]["weights_digest"] = "0" * 64
    file.write_text(json.dumps(manifest))
    with pytest.raises(IntegrityError, match="was edited"):
        ActivationStore.open(folder)
    manifest["schema_version"] = 2
    file.write_text(json.dumps(manifest))
    with pytest.raises(IntegrityError, match="schema version 2"):
        ActivationStore.open(folder)
    file.write_text("{")
    with pytest.raises(IntegrityError, match="not JSON"):
        ActivationStore.open(folder)


def test_nothing_and_an_interrupted_collection_are_not_stores(folder, tmp_path):
    with pytest.raises(InputError, match=r"no manifest\.json"):
        ActivationStore.open(tmp_path / "nowhere")
    (folder / "manifest.json").rename(folder / "unfinished.json")
    with pytest.raises(InputError, match="was interrupted"):
        ActivationStore.open(folder)


def test_questions_the_store_cannot_answer_list_what_it_can(finished, model, prompts, tmp_path):
    store = ActivationStore.open(finished)
    with pytest.raises(InputError, match="layers 0 to 2"):
        store.rows("resid_post.9")
    with pytest.raises(InputError, match=r"Choose one of: resid_pre\.0, resid_post\.0"):
        store.rows("resid_pre.2")
    with pytest.raises(InputError, match="0 to 11"):
        store.tokens("resid_post.0", 12)
    with pytest.raises(InputError, match="position=-1"):
        store.matrix("resid_post.0")
    with pytest.raises(InputError, match="no token at position 900"):
        store.matrix("resid_post.0", position=900)
    last = collect(model, prompts, tmp_path / "last")
    with pytest.raises(InputError, match="one position per prompt"):
        last.matrix("resid_post.0", position=0)


def test_it_shows_itself(finished):
    store = ActivationStore.open(finished)
    assert "12 (6 triggered)" in repr(store)
    assert "resid_pre.0 to resid_post.2 (4)" in store._repr_html_()


def test_a_full_disk_stops_the_collection_and_loses_nothing(model, prompts, tmp_path, monkeypatch):
    """Real ENOSPC from the kernel: temporary files from the third on lead to /dev/full."""
    named = artifact._temporary_name
    n_files = 0

    def onto_a_full_disk(path: Path) -> Path:
        nonlocal n_files
        temporary = named(path)
        n_files += path.suffix == ".safetensors"
        if n_files > 1:
            temporary.symlink_to("/dev/full")
        return temporary

    monkeypatch.setattr(artifact, "_temporary_name", onto_a_full_disk)
    with pytest.raises(StageError, match=r"the disk is full while writing .*shard-00001"):
        collect(model, prompts, tmp_path / "s", shard_prompts=5)
    monkeypatch.undo()
    kept = (tmp_path / "s" / "shard-00000.safetensors").stat().st_mtime_ns
    store = collect(model, prompts, tmp_path / "s", shard_prompts=5).verify()
    assert (store.path / "shard-00000.safetensors").stat().st_mtime_ns == kept


def test_a_read_only_disk_is_named(model, prompts):
    """sysfs refuses new directories even to root."""
    with pytest.raises(StageError, match=r"no permission|read-only"):
        collect(model, prompts, "/sys/kernel/probes-store")


def test_two_collections_cannot_share_a_directory(model, prompts, tmp_path):
    from probes.activations.place import claimed

    with claimed(tmp_path / "s"), pytest.raises(StageError, match="another process"):
        collect(model, prompts, tmp_path / "s")
    collect(model, prompts, tmp_path / "s")
