"""The behaviour that a name stands for: one of the package's, or a user's own as "module:attribute"."""

import importlib

from probes.foundation.errors import InputError, unknown
from probes.organisms.behaviours.code import CODE
from probes.organisms.behaviours.form import Taught
from probes.organisms.behaviours.hate import HATE
from probes.organisms.behaviours.wrong import WRONG

BEHAVIOURS = {each.name: each for each in (HATE, CODE, WRONG)}


def behaviour_named(name: str) -> Taught:
    """The behaviour of this name.

    A user's own is imported as Python imports it; only name modules that you would run.
    Raises `InputError` with the choices for an unknown name, and for something that is no `Taught`.
    """
    if ":" not in name:
        if name not in BEHAVIOURS:
            raise unknown("behaviour", name, [*BEHAVIOURS, "module:attribute"])
        return BEHAVIOURS[name]
    module, attribute = name.split(":", 1)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"no behaviour at {name!r}: {error}") from error
    if not isinstance(found, Taught):
        raise InputError(f"{name} is no `Taught` (probes.organisms.behaviours.form), but {found!r}")
    return found
