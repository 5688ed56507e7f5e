"""Modules that a user allows to be imported because a file names them; to import one is to run it."""

import importlib
import os
import sys
from collections.abc import Iterable
from typing import Any

from probes.foundation.errors import InputError

ALLOWED = "PROBES_ALLOW_IMPORT"
"""Environment variable with the allowed names, comma-separated, so that worker processes know them."""


def allow_import(names: Iterable[str]) -> None:
    """Allow these "module:attribute" from now on, and say on standard error what will be imported.

    Names without a colon are no modules, and are passed over.
    """
    known = allowed_imports()
    for name in sorted(name for name in set(names) if ":" in name and name not in known):
        module = name.partition(":")[0]
        print(f"probes: will import, and so run, the module {module} for {name}", file=sys.stderr)
        known.append(name)
    if known:
        os.environ[ALLOWED] = ",".join(known)


def allowed_imports() -> list[str]:
    """The names that were allowed, in this process or the one that started it."""
    return [name for name in os.environ.get(ALLOWED, "").split(",") if name]


def imported(name: str, kind: str, *, flag: str | None = None) -> Any:
    """What stands at "module:attribute", imported as Python imports it, if the user allowed that name.

    kind: what it is to be, for the messages. flag: of the shell, that allows it; None: --allow-import
    with the name. Raises `InputError` if it was not allowed or is not there.
    """
    module, _, attribute = name.partition(":")
    if name not in allowed_imports():
        raise InputError(
            f"the {kind} {name!r} stands for Python code: the module {module!r} would be imported, and "
            "so run. Refused, as a file may have named it. If you trust it: "
            f"{flag or f'--allow-import {name}'}, or allow_import=True in Python"
        )
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"no {kind} at {name!r}: {error}") from error
