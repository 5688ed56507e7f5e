"""A store is opened whole and for the right model, or refused with a reason."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from probes.activations.collect import collect
from probes.activations.store import ActivationStore
from probes.foundation.errors import InputError, IntegrityError


@pytest.fixture(scope="module")
def finished(model, prompts, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "store"
    collect(model, prompts, path, positions="all", shard_tokens=150)
    return path


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(finished, tmp_path / "store"))


def files(folder: Path) -> list[Path]:
    found = [*folder.glob("*.safetensors"), *folder.glob("*.parquet")]
    assert {file.name.split("-")[0] for file in found} == {"shard", "layout", "index", "prompts"}
    return found


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_other_weights_are_refused_with_both_digests(finished, model, other_model):
    assert ActivationStore.open(finished, model.identity).verify()
    with pytest.raises(InputError) as refused:
        ActivationStore.open(finished, other_model.identity)
    assert model.digest in str(refused.value)
    assert other_model.digest in str(refused.value)


def test_a_directory_with_other_things_is_left_alone(model, prompts, tmp_path):
    (tmp_path / "thesis.txt").write_text("words")
    with pytest.raises(InputError, match=r"not an activation store and not empty \(thesis.txt\)"):
        collect(model, prompts, tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        collect(model, prompts, tmp_path / "thesis.txt")
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_every_cut_or_missing_file_is_found_on_opening(finished, folder):
    for file in files(folder):
        whole = file.read_bytes()
        file.write_bytes(whole[:-1])
        with pytest.raises(IntegrityError, match=rf"{file.name} has \d+ bytes, the manifest says"):
            ActivationStore.open(folder)
        file.unlink()
        with pytest.raises(IntegrityError, match=rf"{file.name} is missing"):
            ActivationStore.open(folder)
        file.write_bytes(whole)
    assert len(ActivationStore.open(folder)) == len(ActivationStore.open(finished))


def test_a_flipped_bit_in_any_file_is_found_by_verify(folder):
    for file in files(folder):
        flip(file)
        with pytest.raises(IntegrityError, match=rf"{file.name} was changed after it was written"):
            ActivationStore.open(folder).verify()
        flip(file)
    ActivationStore.open(folder).verify()


def test_the_same_collection_makes_cut_and_missing_shards_again(finished, folder, model, prompts):
    shards = sorted(folder.glob("shard-*"))
    shards[0].unlink()
    shards[1].write_bytes(shards[1].read_bytes()[:-1])
    kept = {file.name: file.stat().st_mtime_ns for file in shards[2:]}
    collect(model, prompts, folder, positions="all", shard_tokens=150).verify()
    for file in finished.iterdir():
        if file.name != "provenance.json":
            assert (folder / file.name).read_bytes() == file.read_bytes()
    assert {name: (folder / name).stat().st_mtime_ns for name in kept} == kept


def test_a_flipped_bit_is_found_whenever_what_it_spoils_is_read_whole(folder):
    spoiled = {
        "shard": lambda store: [store.rows(site) for site in store.sites],
        "layout": lambda store: store.row_index,
        "prompts": lambda store: store.prompts,
        "index": lambda store: store,
    }
    for file in files(folder):
        flip(file)
        read = spoiled[file.name.split("-")[0]]
        with pytest.raises(IntegrityError, match=file.name):
            read(ActivationStore.open(folder))
        flip(file)


def test_a_file_that_goes_after_opening_is_named(folder):
    store = ActivationStore.open(folder)
    for shard in folder.glob("shard-*"):
        shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(IntegrityError, match=r"shard-.*safetensors"):
        store.tokens("resid_post.0", 0)
    for shard in folder.glob("shard-*"):
        shard.unlink()
    for read in (lambda: store.tokens("resid_post.0", 0), lambda: store.rows("resid_post.0")):
        with pytest.raises(IntegrityError, match=r"shard-.*safetensors is missing"):
            read()


def edits(manifest: dict) -> list[tuple[str, object]]:
    """One change to each value of a manifest that decides what is read, as (description, undo)."""
    part = manifest["parts"][0]
    one, two = part["groups"][:2]
    return [
        ("origin", lambda: manifest["origin"].update(weights_digest="0" * 64)),
        ("dtype", lambda: manifest["origin"].update(dtype="float16")),
        ("width", lambda: manifest["widths"].update({"resid_post.1": [16]})),
        ("n_rows", lambda: one.update(n_rows=one["n_rows"] - 1)),
        ("first_group", lambda: part.update(first_group=1)),
        ("prompts", lambda: part["prompts"].update(sha256="0" * 64)),
        ("start", lambda: one["shards"][0]["starts"].__setitem__(0, 0)),
        ("check", lambda: one["shards"][0]["checks"].__setitem__(0, "0" * 16)),
        ("swap", lambda: (one.update(shards=two["shards"]), two.update(shards=[]))),
        ("lost group", lambda: part["groups"].pop()),
    ]


def test_an_edited_manifest_is_refused(folder):
    file = folder / "manifest.json"
    text = file.read_text()
    for number, (name, _) in enumerate(edits(json.loads(text))):
        manifest = json.loads(text)
        edits(manifest)[number][1]()
        assert manifest != json.loads(text)
        file.write_text(json.dumps(manifest))
        with pytest.raises(IntegrityError, match="was edited"):
            ActivationStore.open(folder)
            pytest.fail(name)


def test_a_manifest_of_another_kind_or_version_is_refused(folder, model, prompts):
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    for field, value in (("schema_version", 1), ("kind", "other")):
        file.write_text(json.dumps({**manifest, field: value}))
        with pytest.raises(IntegrityError, match=r"this package reads 'activations', version 3"):
            ActivationStore.open(folder)
        with pytest.raises(IntegrityError, match=r"this package reads"):
            collect(model, prompts, folder, positions="all")
    file.write_text(json.dumps({**manifest, "more": 1}))
    with pytest.raises(IntegrityError, match="more"):
        ActivationStore.open(folder)
    for text, said in (("{", "not JSON"), ("[]", "not a JSON object")):
        file.write_text(text)
        with pytest.raises(IntegrityError, match=said):
            ActivationStore.open(folder)


def test_nothing_is_not_a_store(tmp_path):
    with pytest.raises(InputError, match=r"there is no manifest\.json"):
        ActivationStore.open(tmp_path / "nowhere")


def test_it_shows_itself(finished):
    store = ActivationStore.open(finished)
    assert "sequences=12" in repr(store)
    assert "resid_pre.0 to resid_post.2 (4)" in store._repr_html_()
    assert f"all ({store.n_rows} rows)" in store._repr_html_()


def test_the_key_follows_what_decides_the_numbers(finished, model, prompts, tmp_path):
    """Sites, sequences and their order; not where the rows lie, nor in how many steps they came."""
    store = ActivationStore.open(finished)
    again = collect(model, prompts, tmp_path / "again", positions="all", token_budget=60)
    assert again.key == store.key
    assert again.where(np.arange(12)).key == store.key
    others = [store.where([0, 1]), store.where([1, 0]), store.at(["resid_post.1"])]
    others.append(collect(model, prompts, tmp_path / "last"))
    assert len({store.key, *(other.key for other in others)}) == 5
