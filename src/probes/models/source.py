"""What it takes to load the very same model again: in another process, or on another machine."""

from collections.abc import Mapping
from typing import Any

from probes.foundation.config import Config

Pairs = tuple[tuple[str, int | str], ...]


class Source(Config):
    """Where a model came from and how it was loaded; plain JSON, so that it can be sent anywhere.

    It says nothing of the content: `load_from` takes the weights' digest beside it.

    directory: absolute path of the checkpoint, or its hub id. adapter: the same for an adapter.
    label: the name in tables. device: of the whole model; a device map stands in its place.
    dtype: by name, such as "float32". device_map: a strategy, or (module, device) pairs.
    quantization: None, "8bit" or "4bit".
    """

    directory: str
    label: str
    device: str = "cpu"
    dtype: str = "float32"
    adapter: str | None = None
    device_map: str | Pairs | None = None
    quantization: str | None = None

    @property
    def placement(self) -> str | dict[str, int | str] | None:
        """The device map as transformers takes it."""
        if self.device_map is None or isinstance(self.device_map, str):
            return self.device_map
        return dict(self.device_map)


def as_pairs(device_map: Mapping[str, Any]) -> Pairs:
    """A device map in a form that hashes; in its own order, as the first device is the main one."""
    return tuple(
        (module, device if isinstance(device, int) else str(device))
        for module, device in device_map.items()
    )
