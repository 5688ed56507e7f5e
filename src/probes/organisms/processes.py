"""Training on several processes: who they are, and who of them writes.

Started by `torchrun --nproc-per-node 2 "$(which probes)" organism RECIPE.json --out DIR`, or, where
there are GPUs, by `accelerate launch --multi_gpu --num_processes 2` in place of `torchrun
--nproc-per-node 2`, every process runs the same program on its share of each batch, and the first
one alone writes artifacts. All must see the same files, and a training is taken up again by as many
processes as began it. (`accelerate launch --cpu` starts a single process unless mpirun is there;
the card says how many there were.) Started plainly there is one process, which uses one device.
"""

import contextlib
from collections.abc import Iterator

import torch
from accelerate import PartialState

from probes.foundation.errors import InputError


def on_cpu() -> bool:
    """Whether this machine has no accelerator to train on."""
    return not torch.accelerator.is_available()


def processes() -> PartialState:
    """This process among those that train together; joins them where a launcher started several."""
    return PartialState(cpu=on_cpu())


@contextlib.contextmanager
def first_then_others() -> Iterator[None]:
    """The block is run by the first process, then by the others, who find what it left on disk."""
    with processes().main_process_first():
        yield


def share(batch_size: int, micro_batch: int | None) -> tuple[int, int]:
    """How many examples a process takes at once, and how many times, for one step of the optimiser.

    Raises `InputError` where processes or micro-batches cannot have equal shares.
    """
    count = processes().num_processes
    mine = batch_size // count
    at_once = micro_batch or mine
    if mine * count != batch_size or mine % at_once:
        raise InputError(
            f"a batch of {batch_size} cannot be shared by {count} processes"
            + (f" in micro-batches of {micro_batch}" if micro_batch else "")
            + f": give a batch_size that is a multiple of {count * (micro_batch or 1)}"
        )
    return at_once, mine // at_once
