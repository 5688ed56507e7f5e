"""One process at a time writes to a folder, and one set of settings for good."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from probes.foundation.config import Config
from probes.foundation.errors import InputError, IntegrityError
from probes.foundation.outputs import claimed, take_up, writes

HOLD = """
import sys
from probes.foundation.outputs import claimed
with claimed(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


def hold(path: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def first_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_the_second_waits_names_the_first_and_goes_on_when_it_is_killed(tmp_path: Path) -> None:
    first = hold(tmp_path / "run")
    assert first_line(first) == "held\n"
    second = hold(tmp_path / "run")
    assert second.stderr is not None
    said = second.stderr.readline()
    assert said.startswith(f"process {first.pid} (") and "waiting for it" in said
    assert second.poll() is None
    first.send_signal(signal.SIGKILL)
    assert first_line(second) == "held\n"
    second.communicate("\n", timeout=30)
    first.communicate()


def test_whoever_waits_gets_the_folder_that_is_there_then(tmp_path: Path) -> None:
    """An artifact is replaced by a rename, so that the lock waited for may be of a deleted folder."""
    out = tmp_path / "x"
    with claimed(out):
        second = hold(out)
        assert second.stderr is not None and "waiting" in second.stderr.readline()
        out.rename(tmp_path / "old")
        out.mkdir()
        (out / "file").write_text("x")
    assert first_line(second) == "held\n"
    third = hold(out)
    assert third.stderr is not None and f"process {second.pid}" in third.stderr.readline()
    for process in (second, third):
        process.communicate("\n", timeout=30)


def test_the_holder_may_claim_again_and_processes_that_train_together_do_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to("run")
    (tmp_path / "run").mkdir()
    with claimed(tmp_path / "run"), claimed(tmp_path / "link"):
        monkeypatch.setenv("RANK", "1")
        done = subprocess.run(
            [sys.executable, "-c", HOLD, str(tmp_path / "run")],
            input="\n", capture_output=True, text=True, check=True, timeout=60, env={**os.environ},
        )  # fmt: skip
        assert (done.stdout, done.stderr) == ("held\n", "")


@pytest.mark.parametrize("deep", ["stage", "stage/deep"])
def test_a_folder_with_a_link_in_it_is_refused(tmp_path: Path, deep: str) -> None:
    link = tmp_path / "run" / deep
    link.parent.mkdir(parents=True)
    link.symlink_to("/etc")
    with pytest.raises(IntegrityError, match=f"{deep} is a link"), claimed(tmp_path / "run"):
        raise AssertionError("it was taken")


@writes("out", "sums", free=("engine",))
def add(
    numbers: list[int], out: Path | str | None = None, *, scale: int = 1, engine: str = ""
) -> int:
    if scale == 0:
        raise InputError("scale is not 0")
    found = sum(numbers) * scale
    if out is not None:
        assert isinstance(out, Path)
        (out / "sum.txt").write_text(str(found))
    return found


def test_tables_of_other_settings_are_refused_and_of_the_same_made_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert add([1, 2]) == 3
    with pytest.raises(InputError, match="scale is not 0"):
        add([1, 2], out, scale=0)
    assert not out.exists(), "what failed before it wrote anything has not begun"
    assert add([1, 2], str(out), scale=2) == add([1, 2], out, scale=2, engine="ray") == 6
    for numbers, scale, said in (
        ([1, 2], 3, r"settings\.scale is 2 there, 3 now"),
        ([1, 3], 2, r"settings\.numbers is \[1, 2\] there, \[1, 3\] now"),
        (list(range(50)), 2, r"numbers is \[1, 2\] there, '50, digest"),
    ):
        with pytest.raises(InputError, match=said):
            add(numbers, out, scale=scale)
    assert (out / "sum.txt").read_text() == "6"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "sum.txt").write_text("my own")
    with pytest.raises(InputError, match=r"not empty \(sum\.txt\)"):
        add([1, 2], tmp_path / "mine")
    assert (tmp_path / "mine" / "sum.txt").read_text() == "my own"


class Two(Config):
    size: int = 1
    seeds: int = 1


def test_a_run_is_continued_by_its_own_settings_alone(tmp_path: Path) -> None:
    take_up(tmp_path / "run", "a run", Two())
    take_up(tmp_path / "run", "a run", Two(seeds=2), free=("seeds",))
    with pytest.raises(InputError, match="size is 1 there, 2 now"):
        take_up(tmp_path / "run", "a run", Two(size=2), free=("seeds",))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "organisms").mkdir()
    with pytest.raises(InputError, match=r"not empty \(organisms\)"):
        take_up(tmp_path / "other", "a run", Two())
    take_up(tmp_path / "other", "a run", Two(), known=("organisms",))
