"""However a command ends, it says so in one line, without a traceback, and with its own exit status."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = """
import sys, time
from pathlib import Path
from probes.cli.main import app, main
from probes.foundation.errors import InputError
from probes.foundation.terminal import say

@app.command(name="wait")
def wait() -> None:
    sys.stderr.write("ready\\n")
    sys.stderr.flush()
    time.sleep(60)

@app.command(name="rewrite")
def rewrite() -> None:  # as Ray does in ray.get
    try:
        wait()
    except SystemExit:
        raise SystemExit(1) from None

@app.command(name="ray")
def on_ray() -> None:
    from probes.foundation.cluster import connected
    import ray
    with connected(n_cpus=1):
        sleeping = ray.remote(lambda: time.sleep(120)).remote()
        sys.stderr.write("ready\\n")
        sys.stderr.flush()
        ray.get(sleeping)

@app.command(name="fail")
def fail(text: str) -> None:
    raise InputError(text.encode().decode("unicode_escape"))

@app.command(name="file")
def file(name: Path) -> None:
    name.read_text()

@app.command(name="talk")
def talk() -> None:
    for _ in range(20_000):
        say("a line \\u2014 of some length")

main()
"""


def command(*words: str, **options: object) -> "subprocess.Popen[str]":
    """A command line of its own; an interrupt reaches it even where these tests run in the background."""
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        text=True, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )  # type: ignore[call-overload, no-any-return]  # fmt: skip


def stopped(verb: str, how: int) -> tuple[int, list[str]]:
    process = command(verb)
    while process.stderr.readline() != "ready\n":
        assert process.poll() is None
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    return process.returncode, said.splitlines()


ENDS = [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]


@pytest.mark.parametrize("verb", ["wait", "rewrite"])
@pytest.mark.parametrize(("how", "status", "word"), ENDS)
def test_who_stops_a_command_is_told_how_to_go_on(
    verb: str, how: int, status: int, word: str
) -> None:
    code, said = stopped(verb, how)
    assert said == [f"probes: {word}; run the same command again to continue"]
    assert code == status


@pytest.mark.slow
@pytest.mark.parametrize(("how", "status", "word"), ENDS)
def test_the_same_inside_a_run_on_ray(how: int, status: int, word: str) -> None:
    """Ray has handlers of its own."""
    code, said = stopped("ray", how)
    assert said[0] == f"probes: {word}; run the same command again to continue"
    assert not [line for line in said if "Traceback" in line]
    assert code == status


def test_a_reader_that_leaves_ends_the_command_in_silence() -> None:
    process = command("talk")
    process.stdout.readline()
    process.stdout.close()
    assert (process.stderr.read(), process.wait(timeout=60)) == ("", 141)


def test_a_full_output_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        process = command("talk", stdout=full)
        _, said = process.communicate(timeout=60)
    assert said == "probes: the system refused: No space left on device\n"
    assert process.returncode == 2


def test_closed_streams_and_other_encodings_are_no_trouble(tmp_path: Path) -> None:
    closed = f"exec {sys.executable} -c '{COMMAND}' talk >&- 2>&-"
    assert subprocess.run(["sh", "-c", closed], check=False, timeout=60).returncode == 0
    process = command("talk", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    shown, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")
    assert shown.startswith("a line \\u2014 of")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fail", "two\\nlines \\x1b[2J"], "probes: two lines \\x1b[2J\n"),
        (["file", "/nowhere"], "probes: the system refused: No such file or directory: /nowhere\n"),
        (["file", "n" * 300], f"probes: the system refused: File name too long: {'n' * 300}\n"),
        (["lens", "m", "--prompts", "p", "--out", ""], "probes: --out is '', which is no folder: give a path such as runs/mine\n"),
    ],
)  # fmt: skip
def test_an_error_is_one_line(words: list[str], said: str) -> None:
    process = command(*words)
    shown, found = process.communicate(timeout=60)
    assert (shown, found, process.returncode) == ("", said, 2)
