"""A disk that is full or read-only ends a collection with a clear error and an intact store."""

import shutil
from pathlib import Path

import pytest

from probes.activations import files, labels
from probes.activations.collect import collect
from probes.activations.store import ActivationStore
from probes.foundation import artifact
from probes.foundation.errors import StageError

NAMED = artifact.temporary_name
N_SHARDS = 4
SETTINGS = {"shard_tokens": 150, "sites": ["resid_pre.0", "resid_post.1"]}


class FullDisk:
    """Real ENOSPC from the kernel: from one file on, temporary files lead to /dev/full."""

    def __init__(self, first: int) -> None:
        self.first, self.n_files = first, 0

    def __call__(self, path: Path) -> Path:
        temporary = NAMED(path)
        if self.n_files >= self.first:
            temporary.symlink_to("/dev/full")
        self.n_files += 1
        return temporary


@pytest.fixture
def full_from(monkeypatch):
    """Make the disk full from the n-th file on; None makes it empty again."""

    def make(first: int | None) -> FullDisk:
        disk = FullDisk(10**9 if first is None else first)
        for module in (artifact, files, labels):
            monkeypatch.setattr(module, "temporary_name", disk)
        return disk

    return make


def content(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_at_every_file_a_full_disk_is_an_error_and_the_next_run_completes(
    model, prompts, tmp_path, full_from
):
    disk = full_from(None)
    collect(model, prompts, tmp_path / "whole", **SETTINGS)
    expected, n_files = content(tmp_path / "whole"), disk.n_files
    # What it will be, labels, a layout and a shard for each group, index, history, manifest.
    assert n_files == 2 + 2 * N_SHARDS + 3
    for first in range(n_files):
        path = tmp_path / str(first)
        full_from(first)
        with pytest.raises(StageError, match=rf"the disk is full while writing {path}"):
            collect(model, prompts, path, **SETTINGS)
        full_from(None)
        assert not (path / "manifest.json").exists()
        assert not [file for file in path.glob("*") if file.is_symlink()]
        shards = {file.name: file.stat().st_mtime_ns for file in path.glob("shard-*.safetensors")}
        collect(model, prompts, path, **SETTINGS).verify()
        assert {n: (path / n).stat().st_mtime_ns for n in shards} == shards
        found = content(path)
        assert found.pop("provenance.json")
        assert found.items() <= expected.items()
        assert len(found) == len(expected) - 1


def test_a_full_disk_leaves_the_old_store_as_it_was(model, prompts, tmp_path, full_from):
    old = collect(model, prompts[:8], tmp_path / "old", **SETTINGS)
    more = {**SETTINGS, "sites": ["z.1", "resid_post.1"]}
    disk = full_from(None)
    collect(model, prompts[::-1], shutil.copytree(old.path, tmp_path / "count"), **more)
    for first in range(disk.n_files):
        path = shutil.copytree(old.path, tmp_path / str(first))
        full_from(first)
        with pytest.raises(StageError, match="the disk is full"):
            collect(model, prompts[::-1], path, **more)
        for name, data in content(old.path).items():
            assert name == "provenance.json" or (path / name).read_bytes() == data, name
        store = ActivationStore.open(path).verify()
        assert (old.rows("resid_post.1") == store.rows("resid_post.1")).all()
        full_from(None)
        assert len(collect(model, prompts[::-1], path, **more).verify()) == len(prompts)


def test_what_an_earlier_run_left_is_not_written_through(model, prompts, tmp_path):
    """A link under a temporary name led to a file elsewhere, which the table of labels replaced."""
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / ".tmp-prompts.parquet").hardlink_to(mine)
    collect(model, prompts, tmp_path / "store").verify()
    assert mine.read_text() == "mine"


def test_a_read_only_disk_is_named(model, prompts):
    """sysfs refuses new directories even to root."""
    with pytest.raises(StageError, match=r"no permission|read-only"):
        collect(model, prompts, "/sys/kernel/probes-store")
