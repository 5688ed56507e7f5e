"""Collections in processes that are killed, run by the tests as a script of their own.

A fork of a process that has the model loaded and a single thread costs milliseconds, so that a
hundred kills do. Arguments: the checkpoint, a folder to work in, the number of random kills; prints JSON.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
import tqdm

from probes.activations.collect import collect
from probes.activations.compute import compute
from probes.activations.store import ActivationStore
from probes.models.loading import load

torch.set_num_threads(1)
tqdm.tqdm.monitor_interval = 0  # no thread of its own, so that a fork is safe
# By default forks share one lock, which a killed one would take with it.
tqdm.tqdm.set_lock(threading.RLock())

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "activations"), str(TESTS / "gates")]
from kills import in_child, was_killed  # noqa: E402
from random_llama import make_prompts  # noqa: E402

FIRST = ["resid_pre.0", "resid_post.1"]
MORE = ["resid_post.1", "z.2", "mlp_out.0"]


class Work:
    """The collections that are killed: a first one, and one that adds prompts and sites to it."""

    def __init__(self, checkpoint: str) -> None:
        self.model, self.prompts, self.n_computed = load(checkpoint), make_prompts(), 0

    def engine(self, model, tasks, maker):
        for task in tasks:
            self.n_computed += 1
            yield task, compute(model, task.job())

    def collect(self, path: Path, prompts, sites) -> ActivationStore:
        return collect(
            self.model,
            prompts,
            path,
            positions="all",
            sites=sites,
            shard_tokens=120,
            token_budget=60,
            engine=self.engine,
        )

    def first(self, path: Path) -> ActivationStore:
        return self.collect(path, self.prompts[:8], FIRST)

    def extend(self, path: Path) -> ActivationStore:
        return self.collect(path, self.prompts[::-1], MORE)


def content(path: Path) -> dict[str, str]:
    """Digest of every file that counts."""
    files = (file for file in path.iterdir() if file.name != "provenance.json")
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def kill_at_syncs(work: Work, out: Path) -> object:
    """One store per fsync of an uninterrupted run: killed there, then resumed."""
    fsync = os.fsync

    def die_at(point: int) -> None:
        steps = 0

        def stepping(descriptor: int) -> None:
            nonlocal steps
            steps += 1
            if steps == point:
                os.kill(os.getpid(), signal.SIGKILL)
            fsync(descriptor)

        os.fsync = stepping

    def killed(path: Path, point: int) -> None:
        die_at(point)
        work.first(path)

    work.first(out / "whole")
    report = {"n_shards": work.n_computed, "whole": content(out / "whole"), "runs": []}
    for point in range(1, 200):
        path = out / f"killed-{point}"
        if not was_killed(in_child(lambda path=path, point=point: killed(path, point))):
            break
        left = sorted(file.name for file in path.iterdir())
        work.n_computed = 0
        work.first(path)
        report["runs"].append({"left": left, "computed": work.n_computed, "content": content(path)})
    return report


def kill_at_random(
    start: Callable[[Path], object],
    collecting: Callable[[Path], object],
    check: Callable[[Path], None],
    out: Path,
    n_kills: int,
) -> object:
    """Kill at moments spread over the whole run, again and again, and go on until it is finished."""
    draw = random.Random(0)
    start(out / "whole")
    started = time.perf_counter()
    assert not was_killed(in_child(lambda: collecting(out / "whole")))
    duration = time.perf_counter() - started
    report = {"whole": content(out / "whole"), "finished": [], "left": [], "kills": 0}
    while report["kills"] < n_kills:
        path = out / f"store-{len(report['finished'])}"
        start(path)
        alive = False
        while not alive:
            child = in_child(lambda path=path: collecting(path))
            if report["kills"] < n_kills:
                time.sleep(draw.uniform(0, duration))
                os.kill(child, signal.SIGKILL)
            alive = not was_killed(child)
            report["kills"] += not alive
            if not alive and path.exists():
                report["left"].append(sorted(file.name for file in path.iterdir()))
                check(path)
        report["finished"].append(content(path))
        shutil.rmtree(path)
    return report


def extension(work: Work, out: Path, n_kills: int) -> object:
    """The old store can be read at every moment: through its manifest, or as part of the new one."""
    old = work.first(out / "old")
    rows = old.rows("resid_post.1")

    def check(path: Path) -> None:
        store = ActivationStore.open(path).verify()
        assert len(store) in (8, 12)
        assert (store.where(range(8)).rows("resid_post.1") == rows).all()

    report = kill_at_random(
        lambda path: shutil.copytree(out / "old", path), work.extend, check, out, n_kills
    )
    return {**report, "old": content(out / "old")}


if __name__ == "__main__":
    checkpoint, folder, kills = sys.argv[1:]
    syncs, extended = Path(folder) / "syncs", Path(folder) / "extension"
    print(
        json.dumps(
            {
                "syncs": kill_at_syncs(Work(checkpoint), syncs),
                "extension": extension(Work(checkpoint), extended, int(kills)),
            }
        )
    )
