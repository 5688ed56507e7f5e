"""Verifying, listing and tidying: what is damaged is named, what is not a store's is left alone."""

import json
import shutil
from pathlib import Path

import pytest

from probes.activations.collect import collect
from probes.activations.format import Finished, Manifest, manifest_key, read_manifest
from probes.activations.maintenance.listing import (
    delete_garbage,
    describe,
    find_garbage,
    list_stores,
)
from probes.activations.maintenance.verification import check
from probes.activations.store import ActivationStore
from probes.foundation.errors import InputError, IntegrityError

SETTINGS = {"positions": "all", "shard_tokens": 150}
SITES = ["resid_post.0", "resid_post.1"]


@pytest.fixture(scope="module")
def finished(model, prompts, tmp_path_factory) -> Path:
    """Two parts: eight sequences, then four; two sites, in several groups."""
    path = tmp_path_factory.mktemp("finished") / "store"
    collect(model, prompts[:8], path, sites=SITES, **SETTINGS)
    collect(model, prompts, path, sites=SITES, **SETTINGS)
    return path


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(finished, tmp_path / "store"))


@pytest.fixture
def interrupted(finished, tmp_path) -> Path:
    """What is left when a collection is killed before its manifest, with two shards recorded."""
    path = Path(shutil.copytree(finished, tmp_path / "interrupted"))
    manifest = read_manifest(path)
    assert manifest is not None
    for group in manifest.groups[:2]:
        [shard] = group.shards
        sidecar = Finished(maker=manifest.makers[0], shard=shard).to_json()
        (path / f"{shard.file}.finished.json").write_text(sidecar)
    (path / "manifest.json").unlink()
    (path / "unfinished.json").write_text(manifest.origin.to_json())
    return path


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def test_a_whole_store_has_no_damage(finished):
    report = check(finished)
    names = {file.name for file in finished.iterdir()} - {"manifest.json", "provenance.json"}
    assert report.is_whole
    assert (report.n_files, report.table.empty) == (len(names), True)
    assert report.n_bytes == sum((finished / name).stat().st_size for name in names)


def test_every_damaged_file_is_named_with_what_it_held(folder):
    manifest = read_manifest(folder)
    groups = manifest.groups
    assert len(groups) >= 4
    flipped, cut, missing = (groups[i].shards[0] for i in (0, 1, 2))
    flip(folder / flipped.file)
    (folder / cut.file).write_bytes((folder / cut.file).read_bytes()[:-5])
    (folder / missing.file).unlink()
    flip(folder / manifest.parts[1].prompts.file)
    (folder / groups[-1].layout.file).write_bytes(b"")
    (folder / groups[3].shards[0].file).unlink()
    (folder / groups[3].shards[0].file).mkdir()
    report = check(folder)
    faults = {each.holding.record.file: each.fault for each in report.damaged}
    assert faults.keys() == {
        flipped.file,
        cut.file,
        missing.file,
        manifest.parts[1].prompts.file,
        groups[-1].layout.file,
        groups[3].shards[0].file,
    }
    assert "changed" in faults[flipped.file]
    assert faults[cut.file] == f"cut: {cut.bytes - 5:,} of {cut.bytes:,} bytes"
    assert faults[missing.file] == "missing"
    held = dict(zip(report.table["file"], report.table["held"], strict=True))
    n = groups[1].n_sequences
    assert held[cut.file] == f"resid_post.0, resid_post.1 of the {n} sequences of group 1"
    assert held[manifest.parts[1].prompts.file] == "labels of the 4 sequences of part 1"
    for name in faults:
        assert name in repr(report)
        assert name in report._repr_html_()
    assert any("probes store repair" in text for text in report.remedies)
    with pytest.raises(IntegrityError):
        ActivationStore.open(folder)


def test_an_edited_manifest_names_nothing_to_trust(folder):
    file = folder / "manifest.json"
    shard = read_manifest(folder).groups[0].shards[0].file
    edited = Manifest.model_validate_json(file.read_text().replace(shard, "../elsewhere"))
    file.write_text(edited.to_json())
    with pytest.raises(IntegrityError, match="was edited"):
        check(folder)
    key = manifest_key(edited.origin, edited.widths, edited.parts)
    file.write_text(edited.model_copy(update={"key": key}).to_json())
    with pytest.raises(IntegrityError, match=r"names a file '\.\./elsewhere'"):
        check(folder)
    with pytest.raises(InputError, match="no finished activation store"):
        check(folder / "nowhere")


def test_stores_below_a_folder_are_listed_and_nothing_else(finished, interrupted, tmp_path):
    shutil.copytree(finished, tmp_path / "deep" / "down")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text('{"kind": "a web page"}')
    old = tmp_path / "old"
    old.mkdir()
    (old / "manifest.json").write_text('{"kind": "activations", "schema_version": 1}')
    table = list_stores(tmp_path).set_index("store")
    assert list(table.index) == [
        str(tmp_path / name) for name in ("deep/down", "interrupted", "old")
    ]
    whole = table.loc[str(tmp_path / "deep/down")]
    assert (whole["state"], whole["model"], whole["sequences"]) == ("finished", "tiny", "12")
    assert (whole["sites"], whole["positions"]) == ("resid_post.0, resid_post.1", "all")
    manifest = read_manifest(finished)
    state = f"unfinished: 2 shards of {len(manifest.groups)} groups done"
    assert table.loc[str(interrupted), "state"] == state
    assert "schema version 1" in table.loc[str(old), "state"]
    with pytest.raises(InputError, match="no folder"):
        list_stores(tmp_path / "nowhere")


def test_one_store_is_described_by_parts_groups_and_history(finished):
    contents, manifest = describe(finished), read_manifest(finished)
    assert contents.parts["sequences"].tolist() == [8, 4]
    assert len(contents.groups) == len(manifest.groups)
    assert contents.groups["rows"].sum() == manifest.n_rows
    assert contents.history["new sequences"].tolist() == [8, 4]


def test_what_no_manifest_names_is_listed_and_deleted_and_strangers_stay(folder):
    before = {file.name for file in folder.iterdir()}
    own = {
        "shard-0123456789abcdef.safetensors",
        "shard-0123456789abcdef.safetensors.finished.json",
        "layout-0123456789abcdef.safetensors",
        "index-0123456789abcdef.safetensors",
        "prompts-0123456789abcdef.parquet",
        ".tmp-shard-x",
        "unfinished.json",
    }
    foreign = {"thesis.txt", "shard-final.safetensors", "shard-0123456789abcdef.safetensors.bak"}
    for name in own | foreign:
        (folder / name).write_text("four")
    (folder / "layout-fedcba9876543210.safetensors").mkdir()
    foreign.add("layout-fedcba9876543210.safetensors")
    found = find_garbage(folder)
    assert {each.file for each in found.own} == own
    assert {each.file for each in found.foreign} == foreign
    assert found.n_bytes == 4 * len(own)
    assert {file.name for file in folder.iterdir()} == before | own | foreign
    deleted = delete_garbage(folder)
    assert deleted.is_deleted
    assert {file.name for file in folder.iterdir()} == before | foreign
    assert check(folder).is_whole
    assert not delete_garbage(folder).own


def test_interrupted_work_is_deleted_only_when_asked_and_leaves_an_empty_place(
    interrupted, model, prompts
):
    before = {file.name for file in interrupted.iterdir()}
    found = find_garbage(interrupted)
    assert {each.file for each in found.files} == before
    assert "would be lost" in found.summary
    assert {file.name for file in interrupted.iterdir()} == before
    assert "is lost" in delete_garbage(interrupted).summary
    assert list(interrupted.iterdir()) == []
    collect(model, prompts, interrupted)


def test_nothing_is_deleted_where_no_store_lies(tmp_path):
    file = tmp_path / "shard-0123456789abcdef.safetensors"
    file.write_text("")
    (tmp_path / "manifest.txt").write_text("")
    for verb in (find_garbage, delete_garbage):
        with pytest.raises(InputError, match="not an activation store"):
            verb(tmp_path)
        with pytest.raises(InputError, match="not an activation store"):
            verb(tmp_path / "nowhere")
    assert file.exists()
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "manifest.json").write_text(json.dumps({"kind": "a web page"}))
    with pytest.raises(IntegrityError):
        delete_garbage(tmp_path)
    assert file.exists()
