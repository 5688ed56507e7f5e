"""Arguments are checked before a verb loads its libraries, so that a slip of the pen costs no wait."""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from probes.cli.arguments import named
from probes.foundation.errors import InputError, unknown
from probes.foundation.imports import allow_import
from probes.models.address import check_address, near
from probes.studies.catch.presets import PRESETS

WRITTEN = ("out", "organisms")
"""Paths that need not be there."""
MODELS = ("model", "base", "adapter")


def checked(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb, which first refuses models, files, folders and presets that are not there."""

    @functools.wraps(verb)
    def run(**arguments: Any) -> None:
        for name, value in arguments.items():
            if name in MODELS and isinstance(value, str):
                check_address(value)
            elif name == "twin":
                for twin in named(value or (), "--twin").values():
                    check_address(twin)
            elif name == "preset" and value not in PRESETS:
                raise unknown("preset", value, PRESETS)
            elif name in ("allow_import", "behaviour") and isinstance(value, list):
                allow_import(value)  # typed by the user, not named by a file
            elif name not in WRITTEN:
                for path in _paths(value):
                    _check_path(path)
        verb(**arguments)

    return run


def _paths(value: Any) -> Iterable[Path]:
    return [
        path for path in (value if isinstance(value, list) else [value]) if isinstance(path, Path)
    ]


def _check_path(path: Path) -> None:
    try:
        there = path.expanduser().exists()
    except (OSError, ValueError) as error:
        raise InputError(f"there is no file or folder {str(path)[:200]!r}: {error}") from error
    if not there:
        raise InputError(f"there is no file or folder {path}.{near(path)}")
