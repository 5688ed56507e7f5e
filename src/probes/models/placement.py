"""Where the parts of a model lie: on one device, or spread over several and the disk."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from probes.foundation.errors import InputError, unknown

STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")
DISK = "disk"


def devices() -> list[str]:
    """The devices of this machine, by the names that torch gives them."""
    found = ["cpu"]
    if torch.cuda.is_available():
        found += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


def fastest() -> str:
    """Where a model is computed soonest here: the first GPU, or the CPU where there is none."""
    return next((device for device in devices() if device in ("cuda", "mps")), "cpu")


DEVICE, DTYPE, DEVICE_MAP = "PROBES_DEVICE", "PROBES_COMPUTE_DTYPE", "PROBES_DEVICE_MAP"
"""Environment variables of `on_device`, so that worker processes know them."""


@contextlib.contextmanager
def on_device(
    device: str | None = None, *, compute_dtype: str | None = None, device_map: str | None = None
) -> Iterator[None]:
    """Load models so meanwhile, where `load` is told nothing else; None changes nothing.

    device: "cpu", "cuda", "cuda:1", "mps", or "auto" for the first of cuda, mps and cpu that is here.
    compute_dtype, device_map: as `load` takes them.
    Raises `InputError` for a device that this machine lacks.
    """
    chosen = {
        DEVICE: device and str(check_device(device)),
        DTYPE: compute_dtype,
        DEVICE_MAP: device_map,
    }
    wanted = {name: value for name, value in chosen.items() if value is not None}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({} if value is None else {name: value})


def check_device(device: str) -> torch.device:
    """The device of that name ("auto": `fastest`); `InputError` with the choices where there is none."""
    if device == "auto":
        device = fastest()
    if device not in devices():
        raise unknown("device", device, devices())
    return torch.device(device)


def check_placement(placement: str | Mapping[str, int | str], device: str) -> None:
    """Refuse a device map that this machine cannot hold, before anything is read.

    Raises `InputError` for an unknown strategy or device, for a map without entries, and for a
    `device` named beside it, because one of the two would not be followed.
    """
    if device != "cpu":
        raise InputError(
            f"device={device!r} and device_map={placement!r} say two things about where the model "
            "lies; give one of them"
        )
    if isinstance(placement, str):
        if placement not in STRATEGIES:
            raise unknown("device_map", placement, STRATEGIES)
        return
    if not placement:
        raise InputError("the device map is empty: name at least one module, or '' for all of them")
    numbers = range(torch.cuda.device_count())
    allowed = [*devices(), DISK, *(str(number) for number in numbers)]
    for place in placement.values():
        if str(place) not in allowed:
            raise unknown("device in the device map", place, allowed)


def check_covered(hf: nn.Module, placement: str | Mapping[str, int | str]) -> None:
    """Refuse a map with a name that no module has, or without a place for some of the weights.

    Either would leave weights where nobody asked for them to be. `hf` may be without weights.
    """
    if isinstance(placement, str) or set(placement) == {""}:
        return
    names = [name for name, _ in hf.named_parameters()]
    modules = [name for name, _ in hf.named_modules() if name]
    strangers = [key for key in placement if key not in modules and key not in names]
    if strangers:
        raise InputError(
            f"the device map names {', '.join(map(repr, strangers[:5]))}, which "
            f"{type(hf).__name__} has not; its modules are called {', '.join(modules[:5])}, ..."
        )
    bare = [name for name in names if not any(_within(name, key) for key in placement)]
    if bare:
        raise InputError(
            f"the device map has no place for {', '.join(bare[:5])}{', ...' if bare[5:] else ''}; "
            "name these modules too"
        )


def is_spread(hf: nn.Module) -> bool:
    """Whether accelerate moves weights or activations between devices as the model runs."""
    return any(_executors(module) for module in hf.modules())


def input_device(hf: Any) -> torch.device:
    """Where token ids must go: to the device on which the embedding is computed.

    Weights that were offloaded lie on `meta` between two forward passes, so theirs is no answer.
    """
    embedding = hf.get_input_embeddings()
    for place in _executors(embedding):
        return torch.device(place)
    weight: torch.Tensor = next(embedding.parameters())
    return weight.device


def is_on_disk(hf: Any) -> bool:
    """Whether weights are read from files in every forward pass."""
    return DISK in getattr(hf, "hf_device_map", {}).values()


def _executors(module: nn.Module) -> list[Any]:
    """The devices on which accelerate's hooks (one, or a sequence of them) run this module."""
    hook = getattr(module, "_hf_hook", None)
    places = [getattr(part, "execution_device", None) for part in getattr(hook, "hooks", (hook,))]
    return [place for place in places if place is not None]


def _within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")
