"""The engine that a name stands for."""

from probes.activations.tasks import Engine, in_process
from probes.foundation.errors import unknown

ENGINES = ("process", "ray")


def engine_named(engine: str | Engine) -> Engine:
    """The engine of this name; one that is given as such is taken as it is.

    Raises `InputError` with the choices for an unknown name.
    """
    if not isinstance(engine, str):
        return engine
    match engine:
        case "process":
            return in_process
        case "ray":
            from probes.activations.engines.ray_engine import RayEngine

            return RayEngine()
        case _:
            raise unknown("engine", engine, ENGINES)
