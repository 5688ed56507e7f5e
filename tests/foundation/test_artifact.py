"""An artifact is finished or absent: killed at any moment, on a full disk, or tampered with later."""

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from probes.foundation import artifact
from probes.foundation.artifact import (
    MANIFEST,
    PROCEDURES,
    building,
    disk_errors,
    is_finished,
    is_made_from,
    read_manifest,
    temporary_name,
    verify,
    write_bytes,
    write_text,
)
from probes.foundation.digest import digest_json
from probes.foundation.errors import InputError, IntegrityError, StageError
from probes.foundation.procedures import versions

BUILD = """
import os, signal, sys
from pathlib import Path
from probes.foundation import artifact

calls, last = 0, int(sys.argv[2])

def die_at(name):
    real = getattr(os, name)
    def counted(*args, **kwargs):
        global calls
        calls += 1
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    setattr(os, name, counted)

die_at("fsync")
die_at("replace")
die_at("rename")
with artifact.building(sys.argv[1], kind="test", key="new") as folder:
    (folder / "numbers.txt").write_text("1 2 3")
    (folder / "deep").mkdir()
    (folder / "deep" / "more.txt").write_text("4 5 6")
"""


def build(path: Path, key: str = "k", text: str = "one") -> None:
    with building(path, kind="test", key=key, n_rows=3) as folder:
        (folder / "deep").mkdir()
        (folder / "a.txt").write_text(text)
        (folder / "deep" / "b.txt").write_text("two")


def test_a_finished_artifact_says_what_it_is_and_what_it_holds(tmp_path: Path) -> None:
    build(tmp_path / "x", key="k")
    assert is_finished(tmp_path / "x", "k")
    with pytest.raises(InputError, match=r"made from other settings.*n_rows is 3 there, 4 now"):
        is_finished(tmp_path / "x", "other key", n_rows=4)
    assert not is_finished(tmp_path / "y", "k")
    manifest = verify(tmp_path / "x")
    assert (manifest.kind, manifest.facts) == ("test", {"n_rows": 3})
    assert set(manifest.files) == {"a.txt", "deep/b.txt"}
    assert manifest.files["a.txt"][1] == len("one")
    assert manifest.provenance["versions"]["torch"]


def test_an_exception_leaves_no_trace_and_keeps_the_old_artifact(tmp_path: Path) -> None:
    build(tmp_path / "x", key="old")
    with (
        pytest.raises(ZeroDivisionError),
        building(tmp_path / "x", kind="test", key="new") as folder,
    ):
        (folder / "a.txt").write_text("half")
        1 / 0  # noqa: B018
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert is_finished(tmp_path / "x", "old")


def test_killed_at_any_sync_or_rename_it_is_whole_or_absent_and_can_be_built_again(
    tmp_path: Path,
) -> None:
    target = tmp_path / "x"
    for moment in range(1, 40):
        run = [sys.executable, "-c", BUILD, str(target), str(moment)]
        code = subprocess.run(run, check=False).returncode
        if read_manifest(target) is not None:
            assert set(verify(target).files) == {"numbers.txt", "deep/more.txt"}
        else:
            assert not target.exists()
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert moment > 4, "the build was never cut off in the middle"
    assert code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["x"], "leftovers of killed runs remain"


def test_a_killed_rebuild_never_shows_a_mixture(tmp_path: Path) -> None:
    for moment in range(1, 40):
        build(tmp_path / "x", key="old")
        run = [sys.executable, "-c", BUILD, str(tmp_path / "x"), str(moment)]
        code = subprocess.run(run, check=False).returncode
        manifest = read_manifest(tmp_path / "x")
        if manifest is not None:
            names = {"old": {"a.txt", "deep/b.txt"}, "new": {"numbers.txt", "deep/more.txt"}}
            assert set(verify(tmp_path / "x").files) == names[manifest.key]
        if code == 0:
            return
    raise AssertionError("the build never came to its end")


@pytest.mark.parametrize("spoil", ["edit", "same size", "delete"])
def test_a_changed_file_is_found_and_named(tmp_path: Path, spoil: str) -> None:
    build(tmp_path / "x")
    victim = tmp_path / "x" / "deep" / "b.txt"
    match spoil:
        case "edit":
            victim.write_text("something longer")
        case "same size":
            victim.write_text("owt")
        case "delete":
            victim.unlink()
    with pytest.raises(IntegrityError, match=r"deep/b\.txt.*run again"):
        verify(tmp_path / "x")
    with pytest.raises(IntegrityError, match=r"deep/b\.txt"):
        is_finished(tmp_path / "x", "k")


def test_a_folder_without_a_manifest_is_not_finished(tmp_path: Path) -> None:
    build(tmp_path / "x")
    (tmp_path / "x" / MANIFEST).unlink()
    assert not is_finished(tmp_path / "x", "k")
    with pytest.raises(IntegrityError, match="no finished artifact"):
        verify(tmp_path / "x")


def test_a_truly_full_device_is_said_to_be_full() -> None:
    """`/dev/full` answers every write with ENOSPC, as a full disk does."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with (
        pytest.raises(StageError, match=r"disk is full.*what was finished is kept"),
        disk_errors(Path("/dev/full")),
        Path("/dev/full").open("wb", buffering=0) as file,
    ):
        file.write(b"x")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "read-only"),
    ],
)
def test_a_disk_that_refuses_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    build(tmp_path / "x", key="old")
    write_text(tmp_path / "table.csv", "old")
    before = sorted(tmp_path.rglob("*"))

    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StageError, match=words) as caught:
        write_text(tmp_path / "table.csv", "new")
    assert "table.csv" in str(caught.value)
    with pytest.raises(StageError, match=words):
        build(tmp_path / "x", key="new")
    monkeypatch.undo()
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "table.csv").read_text() == "old"
    assert is_finished(tmp_path / "x", "old")


def save_tensors(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(10_000)}, folder / "a.safetensors")


def save_state(folder: Path) -> None:
    import torch

    torch.save({"a": torch.zeros(10_000)}, folder / "a.pt")


def save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models

    vocabulary = {f"word{i}": i for i in range(5000)}
    Tokenizer(models.WordLevel(vocabulary, "word0")).save(str(folder / "tokenizer.json"))


def save_array(folder: Path) -> None:
    np.save(folder / "a.npy", np.zeros(10_000))


def save_parquet(folder: Path) -> None:
    pd.DataFrame({"a": np.random.default_rng(0).random(10_000)}).to_parquet(folder / "a.parquet")


@pytest.mark.parametrize(
    "save", [save_tensors, save_state, save_tokenizer, save_array, save_parquet]
)
def test_whatever_library_writes_a_write_cut_short_is_one_line(tmp_path: Path, save) -> None:
    """The limit on a file's size cuts a write short as a full disk does, and needs none."""
    build(tmp_path / "x", key="old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(StageError, match=r"the disk is full|larger than this system") as caught:
        try:
            with building(tmp_path / "x", kind="test", key="new") as folder:
                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
                save(folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(tmp_path / "x") in str(caught.value) and "\n" not in str(caught.value)
    assert [*tmp_path.iterdir()] == [tmp_path / "x"]
    assert is_finished(tmp_path / "x", "old")


def test_other_errors_of_the_system_are_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError), disk_errors(tmp_path):
        raise NotADirectoryError(errno.ENOTDIR, "not a directory")


def test_a_read_only_folder_is_said_to_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write anywhere, so the refusal is planted where the folder would give it."""

    def refuse(self: Path, *args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StageError, match=r"read-only.*--out"):
        build(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes(tmp_path / "f", b"old")
    seen = []

    def look(self: Path, target: Path) -> None:
        seen.append((self.read_bytes(), Path(target).read_bytes()))
        os.replace(self, target)  # noqa: PTH105

    monkeypatch.setattr(Path, "replace", look)
    write_bytes(tmp_path / "f", b"new and longer")
    assert seen == [(b"new and longer", b"old")]
    assert (tmp_path / "f").read_bytes() == b"new and longer"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_leftovers_of_other_artifacts_and_of_live_processes_are_not_touched(tmp_path: Path) -> None:
    dead, other, longer = (tmp_path / f".tmp-{x}-1-0123abcd" for x in ("x", "y", "x-y"))
    for folder in (dead, other, longer):
        folder.mkdir()
    with artifact.temporary_folder(tmp_path / "x") as live:
        artifact.discard_leftovers(tmp_path / "x")
        assert [p.exists() for p in (dead, other, longer, live)] == [False, True, True, True]
    assert not live.exists()


def test_a_file_that_a_killed_write_left_is_removed_by_the_next_one_and_a_live_one_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "table.csv"
    left, live = temporary_name(path), temporary_name(path)
    left.write_text("half")
    with live.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        write_text(path, "whole")
        assert sorted(tmp_path.iterdir()) == sorted([path, live])
    write_text(path, "whole")
    assert list(tmp_path.iterdir()) == [path]


INPUTS = {"prompts": "a" * 64, "identity": {"weights": "1"}, PROCEDURES: versions("sampling")}


def test_an_artifact_of_other_inputs_is_refused_and_of_older_code_made_again(tmp_path):
    place = tmp_path / "made"
    assert not is_made_from(place, INPUTS)
    with building(place, kind="thing", key=digest_json(INPUTS), **INPUTS) as folder:
        write_text(folder / "rows.csv", "1\n")
    assert is_made_from(place, INPUTS)
    other = INPUTS | {"identity": {"weights": "2"}}
    with pytest.raises(
        InputError,
        match=r"thing made from other settings or inputs \(identity.weights is '1' there, '2'",
    ):
        is_made_from(place, other)
    assert not is_made_from(place, other | {PROCEDURES: {"sampling": 0}})
    (place / "rows.csv").write_text("2\n")
    with pytest.raises(IntegrityError, match="was changed"):
        is_made_from(place, INPUTS)


def test_only_files_of_the_artifact_are_read_as_its_own(tmp_path):
    with building(tmp_path / "made", kind="thing", key="k") as folder:
        write_text(folder / "one", "1")
        write_text(folder / "two", "2")
    (tmp_path / "made" / "two").write_text("3")
    assert verify(tmp_path / "made", ["one"]).kind == "thing"
    with pytest.raises(IntegrityError, match="two was changed"):
        verify(tmp_path / "made", ["one", "two"])
    with pytest.raises(IntegrityError, match="three is not in"):
        verify(tmp_path / "made", ["three"])


def test_a_procedure_without_a_version_is_unknown():
    with pytest.raises(InputError, match="procedure"):
        versions("guessing")
