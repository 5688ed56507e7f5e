"""What runs inside a Ray worker: the model, loaded once, and the shards that it is asked for."""

import collections
import dataclasses
import platform
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probes.activations.compute import Job, compute
from probes.activations.engine import Done, Task
from probes.activations.format import Maker
from probes.activations.layout import TENSORS
from probes.activations.publication import make_maker, positive
from probes.foundation.cluster import connected
from probes.foundation.errors import InputError, ProbesError, StageError
from probes.models.identity import Identity
from probes.models.loading import DTYPES, Model, load_from
from probes.models.source import Source


@dataclasses.dataclass(frozen=True, eq=False)
class Shard:
    """Computed values on their way to the driver, with the warnings that computing them gave.

    numbers: by site, `[n_rows, width * bytes of a number]` uint8, because numpy has no bfloat16.
    """

    numbers: dict[str, np.ndarray]
    warned: tuple[tuple[type[Warning], str], ...]

    def values(self, dtype: str) -> dict[str, Tensor]:
        """The tensors, `[n_rows, width]`, copied: what Ray hands out is shared and read-only."""
        return {
            site: torch.from_numpy(np.array(rows)).view(DTYPES[dtype])
            for site, rows in self.numbers.items()
        }


class ModelWorker:
    """The actor. It only keeps what it is given until `start`, whose errors reach the driver whole."""

    def __init__(self, source: Source, identity: Identity, maker: Maker) -> None:
        self._source = source
        self._identity = identity
        self._maker = maker
        self._model: Model | None = None

    def start(self) -> None:
        """Load the model.

        Raises `InputError` for other weights than the driver's, and for another maker: other
        libraries, devices or numbers of threads round differently.
        """
        if self._maker.n_threads:
            torch.set_num_threads(self._maker.n_threads)
        model = load_from(self._source, self._identity)
        mine = make_maker(model, self._maker.token_budget)
        if differing := mine.differences(self._maker):
            listed = "; ".join(
                f"{name}: there {there}, here {here}" for name, (there, here) in differing.items()
            )
            raise InputError(
                f"the Ray worker on {platform.node()} would not give the same bytes as this process "
                f"({listed}). Install the same versions on every machine of the cluster"
            )
        self._model = model

    def compute(self, job: Job) -> Shard:
        """One shard; errors as `probes.activations.compute.compute` raises them."""
        assert self._model is not None, "compute before start"
        with warnings.catch_warnings(record=True) as caught:
            found = compute(self._model, _writable(job))
        return Shard(
            {site: value.view(torch.uint8).numpy() for site, value in found.items()},
            tuple((each.category, str(each.message)) for each in caught),
        )


def _writable(job: Job) -> Job:
    """The job with arrays of its own: torch warns of the read-only ones that Ray hands out."""
    copies = {name: np.array(getattr(job.layout, name)) for name in TENSORS}
    return dataclasses.replace(job, layout=dataclasses.replace(job.layout, **copies))


ATTEMPTS = 3
# One to compute and one to go on with while the driver is busy writing.
IN_FLIGHT = 2
START_PATIENCE_S = 60.0


@dataclasses.dataclass(eq=False)
class _Worker:
    """An actor with the tasks that it has been given, in the order in which it works them off."""

    actor: Any
    started: bool = False
    dead: bool = False
    tasks: dict[Any, Task] = dataclasses.field(default_factory=dict)


class Pool:
    """Actors that work off tasks; to be used with `with`, which ends them.

    make_actor: starts one more actor and gives its handle. n_actors: how many to keep alive.
    wants: what an actor needs, for the message of a pool that has to wait for it.
    """

    def __init__(
        self, make_actor: Callable[[], Any], n_actors: int, tasks: Sequence[Task], wants: str
    ) -> None:
        self._make_actor = make_actor
        self._n_actors = n_actors
        self._wants = wants
        self._todo = collections.deque(tasks)
        self._n_left = len(tasks)
        self._workers: list[_Worker] = []
        self._owners: dict[Any, _Worker] = {}
        self._losses: collections.Counter[str] = collections.Counter()
        self._failed_starts = 0
        self._told = False

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._workers:
            _kill(self._workers.pop())

    def run(self) -> Iterator[Done]:
        """Every task with its values, as they come.

        Raises what a worker raised, at once; `StageError` for a task that `ATTEMPTS` workers died
        of, and where workers die as they start.
        """
        import ray

        while self._n_left:
            while len(self._workers) < min(self._n_actors, self._n_left):
                self._hire()
            self._hand_out()
            ready, _ = ray.wait(list(self._owners), timeout=START_PATIENCE_S)
            if not ready:
                self._tell()
            for reference in ready:
                done = self._receive(reference)
                if done is not None:
                    self._n_left -= 1
                    yield done

    def _hire(self) -> None:
        worker = _Worker(self._make_actor())
        self._workers.append(worker)
        self._owners[worker.actor.start.remote()] = worker

    def _hand_out(self) -> None:
        """Give every worker something to do, and then something to go on with.

        Only workers that have started: one that never finds room must not sit on a task. The last
        tasks are left for workers that have none.
        """
        for depth in range(IN_FLIGHT):
            for worker in self._workers:
                reserved = sum(not other.tasks for other in self._workers) if depth else 0
                if worker.started and len(worker.tasks) == depth and len(self._todo) > reserved:
                    task = self._todo.popleft()
                    reference = worker.actor.compute.remote(task.job())
                    worker.tasks[reference] = task
                    self._owners[reference] = worker

    def _receive(self, reference: Any) -> Done | None:
        """Take in one answer: values, a worker that has started, or the loss of either."""
        import ray
        from ray import exceptions

        worker = self._owners.pop(reference)
        try:
            answer: Shard | None = ray.get(reference)
        except exceptions.RayTaskError as error:
            if isinstance(error.cause, ProbesError):
                raise error.cause from None
            raise
        except (
            exceptions.RayActorError,
            exceptions.ObjectLostError,
            exceptions.NodeDiedError,
            exceptions.OutOfMemoryError,
        ) as error:
            self._lose(worker, error)
            if reference in worker.tasks:
                self._todo.appendleft(worker.tasks.pop(reference))
            return None
        if answer is None:
            worker.started, self._failed_starts = True, 0
            return None
        task = worker.tasks.pop(reference)
        for category, message in answer.warned:
            warnings.warn(message, category, stacklevel=2)
        return task, answer.values(task.dtype)

    def _lose(self, worker: _Worker, error: Exception) -> None:
        """Part with a worker, once; answers that it had given before stay good.

        It computed its tasks in order, so the first one that is not done is what it died of.
        """
        if worker.dead:
            return
        worker.dead = True
        self._workers.remove(worker)
        _kill(worker)
        why = " ".join(str(error).split())
        if not worker.started:
            self._failed_starts += 1
            if self._failed_starts == ATTEMPTS:
                raise StageError(
                    f"{ATTEMPTS} Ray workers in a row died while they loaded the model; of the last, "
                    f"Ray says: {why}"
                ) from error
            return
        file = next(iter(worker.tasks.values())).file
        self._losses[file] += 1
        if self._losses[file] == ATTEMPTS:
            raise StageError(
                f"{ATTEMPTS} Ray workers died while they computed {file}; of the last, Ray says: "
                f"{why} If it was killed for its memory, choose a smaller token_budget, or begin "
                "anew with smaller shards."
            ) from error

    def _tell(self) -> None:
        """Say once that nothing has started, rather than wait in silence."""
        if self._told or any(worker.started for worker in self._workers):
            return
        self._told = True
        print(
            f"no Ray worker has started in {START_PATIENCE_S:.0f} s; each wants {self._wants} of "
            "one machine. Waiting for the model to load, or for other work to make room",
            file=sys.stderr,
        )


def _kill(worker: _Worker) -> None:
    import ray

    ray.kill(worker.actor)


@dataclasses.dataclass(frozen=True)
class RayEngine:
    """An engine for `collect`; nothing but this process needs to see the store's disk.

    Ray is used as it stands if it is initialised. Otherwise the cluster at `address`, or at
    RAY_ADDRESS, is joined and left again; without either, one is started on this machine for the
    length of the call.

    n_actors: how many workers load the model; by default as many as find room.
    cpus_per_actor: by default one for each of torch's threads here, which a worker uses too.
    gpus_per_actor: by default as many as the model lies on here.
    address: of a cluster; "auto" finds the one that runs on this machine.
    Raises `InputError` where ray is not installed.
    """

    n_actors: int | None = None
    cpus_per_actor: int | float | None = None
    gpus_per_actor: int | float | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.n_actors is not None:
            positive("n_actors", self.n_actors)
        for name in ("cpus_per_actor", "gpus_per_actor"):
            share = getattr(self, name)
            if share is not None and share <= 0:
                raise InputError(f"{name} is a positive number, not {share}")
        try:
            import ray  # noqa: F401
        except ImportError as error:
            raise InputError(
                'the Ray engine needs ray: pip install "probes[ray]", or engine="process"'
            ) from error

    def __call__(self, model: Model, tasks: Sequence[Task], maker: Maker) -> Iterator[Done]:
        """Every task with its values, in the order in which they are done.

        Raises `InputError` for a model that was not loaded from files, for a cluster that cannot be
        reached or has no machine large enough, and for workers that would compute something else;
        `StageError` where a shard cannot be computed, or costs one worker after the other.
        """
        if model.source is None:
            raise InputError(
                f"{model.name} was made by hand, so Ray workers cannot load it: save it and load it "
                'with `load`, or use engine="process"'
            )
        source = _in_worker(model.source)
        import ray

        with connected(self.address):
            cpus, gpus, room = self._fit(model, maker)

            def make_actor() -> object:
                # A worker that dies is replaced here, where its tasks are known.
                actor = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0)(ModelWorker)
                return actor.remote(source, model.identity, maker)

            n_actors = min(self.n_actors or room, len(tasks))
            with Pool(make_actor, n_actors, tasks, f"{cpus:g} CPUs and {gpus:g} GPUs") as pool:
                yield from pool.run()

    def _fit(self, model: Model, maker: Maker) -> tuple[float, float, int]:
        """CPUs and GPUs of an actor, and how many such actors the cluster has room for."""
        import ray

        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        most_cpus = max(machine.get("CPU", 0.0) for machine in machines)
        cpus = self.cpus_per_actor
        if cpus is None:
            cpus = max(1.0, min(float(maker.n_threads), most_cpus))
        gpus = self.gpus_per_actor
        if gpus is None:
            gpus = n_gpus(model)
        room = 0
        for machine in machines:
            fits = machine.get("CPU", 0.0) // cpus
            if gpus:
                fits = min(fits, machine.get("GPU", 0.0) // gpus)
            elif maker.device != "cpu":
                fits = min(fits, 1)  # a device that Ray does not count, such as mps
            room += int(fits)
        if not room and self.n_actors is None:
            most_gpus = max(machine.get("GPU", 0.0) for machine in machines)
            raise InputError(
                f"a worker wants {cpus:g} CPUs and {gpus:g} GPUs, and no machine of the Ray cluster "
                f"has both; the largest have {most_cpus:g} CPUs and {most_gpus:g} GPUs. Give smaller "
                "cpus_per_actor or gpus_per_actor, or n_actors if the cluster will grow"
            )
        return float(cpus), float(gpus), room


def n_gpus(model: Model) -> int:
    """On how many GPUs of this machine the weights of a model lie."""
    places = {weight.device for weight in model.hf.parameters()}
    return sum(place.type == "cuda" for place in places)


def _in_worker(source: Source) -> Source:
    """The source as a worker must read it: Ray shows it its own GPU only, as the first."""
    if source.device.startswith("cuda"):
        return source.model_copy(update={"device": "cuda"})
    return source
