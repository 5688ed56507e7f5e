"""Modules that a user allows to be imported because a file names them; to import one is to run it."""

import os
import sys
from collections.abc import Iterable

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
