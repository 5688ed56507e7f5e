"""What is still to be computed: tasks that any engine can run, in any order, on any machine."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from torch import Tensor

from probes.activations.compute import Job, compute
from probes.activations.format import FINISHED, GroupRecord, Maker
from probes.activations.layout import Layout
from probes.foundation.digest import digest_json
from probes.foundation.errors import unknown
from probes.models import selftest
from probes.models.loading import Model
from probes.models.sinks import SinkRule


@dataclasses.dataclass(frozen=True)
class Task:
    """Some sites of one group of a store. file: of the shard that it will fill."""

    group: int
    n_tokens: int
    layout_file: Path
    sites: tuple[str, ...]
    dtype: str
    token_budget: int
    file: str
    sinks: SinkRule | None = None

    def job(self) -> Job:
        """The task with its tokens, read now."""
        layout = Layout.from_file(self.layout_file)
        return Job(layout, self.sites, self.dtype, self.token_budget, self.sinks)

    @property
    def sidecar(self) -> Path:
        """Where the record of the finished shard lies until the manifest takes over."""
        return self.layout_file.with_name(self.file + FINISHED)


Done = tuple[Task, dict[str, Tensor]]
Engine = Callable[[Model, Sequence[Task], Maker], Iterator[Done]]


def make_tasks(
    path: Path,
    records: Iterable[tuple[int, GroupRecord]],
    sites: Sequence[str],
    dtype: str,
    token_budget: int,
    sinks: SinkRule | None = None,
) -> list[Task]:
    """One task per group that lacks some of the sites, for the sites that it lacks."""
    tasks = []
    for number, group in records:
        lacking = tuple(site for site in sites if site not in group.sites)
        if lacking and group.n_rows:
            tasks.append(
                Task(
                    group=number,
                    n_tokens=group.n_tokens,
                    layout_file=path / group.layout.file,
                    sites=lacking,
                    dtype=dtype,
                    token_budget=token_budget,
                    file=shard_file(group.layout.sha256, lacking),
                    sinks=sinks,
                )
            )
    return tasks


def shard_file(layout_sha256: str, sites: Sequence[str]) -> str:
    """The name of a shard, decided by what will be in it."""
    return f"shard-{digest_json([layout_sha256, list(sites)])[:16]}.safetensors"


def in_process(model: Model, tasks: Sequence[Task], maker: Maker) -> Iterator[Done]:
    """The plain engine: one task after the other, here."""
    for task in tasks:
        yield task, compute(model, task.job())


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
            from probes.activations.ray_engine import RayEngine

            return RayEngine()
        case _:
            raise unknown("engine", engine, ENGINES)


def tested(engine: str | Engine) -> Engine:
    """The engine, which first runs the model's self-test, once there is something to compute.

    Raises what `engine_named` raises; the engine then raises `StageError` for a failed self-test.
    """
    chosen = engine_named(engine)

    def run(model: Model, tasks: Sequence[Task], maker: Maker) -> Iterator[Done]:
        selftest.doctor(model).require()
        yield from chosen(model, tasks, maker)

    return run
