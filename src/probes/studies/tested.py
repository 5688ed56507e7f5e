"""An engine that computes nothing for a model whose activations could not be trusted."""

from collections.abc import Iterator, Sequence

from probes.activations.engines.named import engine_named
from probes.activations.format import Maker
from probes.activations.tasks import Done, Engine, Task
from probes.models.loading import Model
from probes.models.selftest import doctor


def tested(engine: str | Engine) -> Engine:
    """The engine, which first runs the model's self-test, once there is something to compute.

    Raises what `engine_named` raises; the engine then raises `StageError` for a failed self-test.
    """
    chosen = engine_named(engine)

    def run(model: Model, tasks: Sequence[Task], maker: Maker) -> Iterator[Done]:
        doctor(model).require()
        yield from chosen(model, tasks, maker)

    return run
