"""`probes store`: every verb does what its function does, and its exit status says what was found."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from probes.activations.collect import collect
from probes.activations.format import read_manifest
from probes.activations.store import ActivationStore
from shell import run_cli

SITES = ["resid_post.0", "resid_post.1"]


@pytest.fixture(scope="module")
def finished(model, prompts, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "store"
    collect(model, prompts, path, sites=SITES, positions="all", shard_tokens=60)
    return path


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "store"))


def run(*arguments: object, status: int = 0) -> str:
    result = run_cli(["store", *arguments])
    assert result.code == status, result.err
    return result.err if status == 2 else result.out


def test_verify_ends_with_1_and_names_what_is_damaged_and_repair_mends_it(folder, checkpoint):
    assert "all as written" in run("verify", folder)
    groups = read_manifest(folder).groups
    lost = [groups[0].shards[0].file, groups[1].shards[0].file]
    for name in lost:
        (folder / name).unlink()
    told = run("verify", folder, status=1)
    flat = "".join(told.split())  # a name may be folded in a narrow terminal
    assert all(name in flat for name in lost)
    assert "probes store repair" in told
    assert "2 files restored byte for byte" in run("repair", folder, "--model", checkpoint)
    assert "all as written" in run("verify", folder)
    assert "nothing is damaged" in run("repair", folder, "--model", checkpoint)


def test_repair_ends_with_1_where_damage_is_left(folder, checkpoint):
    (folder / read_manifest(folder).parts[0].prompts.file).unlink()
    told = run("repair", folder, "--model", checkpoint, status=1)
    assert "1 still damaged" in told


def test_verify_of_nothing_is_an_error_of_use(tmp_path):
    assert "no finished activation store" in run("verify", tmp_path, status=2)


def test_ls_shows_a_folder_and_one_store(folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    told = run("ls", folder.parent)
    assert str(folder) in told
    assert "finished" in told
    assert "history" not in told
    told = run("ls", folder)
    n_groups = len(read_manifest(folder).groups)
    for word in ("parts", "groups", "history", str(n_groups)):
        assert word in told
    (folder.parent / "empty").mkdir()
    assert "no activation stores" in run("ls", folder.parent / "empty")


def test_gc_lists_and_deletes_only_when_told(folder):
    leftover = folder / "shard-0123456789abcdef.safetensors"
    leftover.write_text("")
    assert "1 files to delete" in run("gc", folder)
    assert leftover.exists()
    assert "1 files deleted" in run("gc", folder, "--delete")
    assert not leftover.exists()


def test_merge_push_fetch_and_export_in_a_row(finished, model, prompts, tmp_path):
    more = tmp_path / "more"
    collect(model, prompts, more, sites=["resid_post.2"], positions="all", shard_tokens=60)
    assert "resid_post.0 to resid_post.2 (3)" in run("merge", tmp_path / "m", finished, more)
    url = f"file://{tmp_path}/remote"
    assert run("push", tmp_path / "m", url).strip() == url
    run("fetch", url, tmp_path / "f")
    out = tmp_path / "x.npy"
    told = run("export", tmp_path / "f", out, "--site", "resid_post.2", "--position", "-1")
    assert told.strip() == str(out)
    expected = ActivationStore.open(more).matrix("resid_post.2", position=-1)
    np.testing.assert_array_equal(np.load(out), expected)
