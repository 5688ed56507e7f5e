"""Several processes that collect into one store at once, run by the tests as a script of its own.

Arguments: the checkpoint, and a folder to work in; prints JSON. Forks of `killed_collections`.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from probes.activations.collect import collect
from probes.activations.compute import compute
from probes.foundation.outputs import claimed
from probes.models.loading import load

sys.path.insert(0, str(Path(__file__).parent))
from killed_collections import in_child, was_killed
from random_llama import make_prompts


def request(model, path: Path, prompts, answer: Path, **settings) -> None:
    """Collect, and write down what came out of it and how many shards were computed."""
    n_computed = 0

    def engine(model, tasks, maker):
        nonlocal n_computed
        for task in tasks:
            n_computed += 1
            yield task, compute(model, task.job())

    store = collect(
        model, prompts, path, positions="all", shard_tokens=90, engine=engine, **settings
    )
    said = {
        "key": store.key,
        "computed": n_computed,
        "n_sequences": len(store),
        "sites": list(store.widths),
    }
    answer.write_text(json.dumps(said))


def at_once(works: list[Callable[[], None]], path: Path) -> None:
    """Start all while the store is held, so that all of them wait, and then let them go."""
    with claimed(path):
        children = [in_child(work) for work in works]
        wait_until_all_wait()
    killed = [was_killed(child) for child in children]
    assert not any(killed)


def wait_until_all_wait() -> None:
    """Time enough for a fork to reach the claim; one that has not is served all the same."""
    time.sleep(0.3)


def main(checkpoint: str, out: Path) -> dict:
    model, prompts = load(checkpoint), make_prompts()
    report: dict = {}
    requests = {
        "same": [(prompts, None), (prompts, None)],
        "different": [
            (prompts[:8], ["resid_pre.0", "z.1"]),
            (prompts[4:], ["resid_post.2", "z.1"]),
        ],
    }
    for name, asked in requests.items():
        answers = [out / f"{name}-{number}.json" for number in range(2)]
        works = [
            lambda p=p, s=s, a=a, name=name: request(model, out / name, p, a, sites=s)
            for (p, s), a in zip(asked, answers, strict=True)
        ]
        at_once(works, out / name)
        report[name] = [json.loads(answer.read_text()) for answer in answers]
    path, answer = out / "killed", out / "killed.json"
    with claimed(path):
        waiting = [in_child(lambda: request(model, path, prompts, answer)) for _ in range(3)]
        wait_until_all_wait()
        os.kill(waiting[0], signal.SIGKILL)
    os.kill(waiting[1], signal.SIGKILL)
    statuses = ["killed" if was_killed(child) else "done" for child in waiting]
    report["killed"] = {"statuses": statuses, **json.loads(answer.read_text())}
    return report


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
