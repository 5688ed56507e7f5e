"""Content digests: the one way in which the package tells two models, data sets or files apart."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SHORT = 12


def digest_bytes(data: bytes) -> str:
    """sha256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def digest_json(value: Any) -> str:
    """sha256 over canonical JSON (sorted keys, no spaces); the value must be plain JSON data."""
    return digest_bytes(
        json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    )


def digest_file(path: Path | str) -> str:
    """sha256 of a file's bytes, read in pieces."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_tensors(tensors: Mapping[str, "Tensor"]) -> str:
    """sha256 over names, dtypes, shapes and values, whatever file layout or sharding held them."""
    import torch

    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def short(digest: str) -> str:
    """The first 12 characters: enough to tell things apart in a table."""
    return digest[:SHORT]
