"""Workers of a Ray cluster that are made anew when they die, without the task that they died of being lost."""

import collections
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

from probes.foundation.errors import InputError, ProbesError, StageError

ATTEMPTS = 3
# One to compute and one to go on with while the driver is busy writing.
IN_FLIGHT = 2
START_PATIENCE_S = 60.0


@dataclasses.dataclass(eq=False)
class _Worker:
    """An actor with the numbers of the tasks it has been given, in the order in which it works them off."""

    actor: Any
    started: bool = False
    dead: bool = False
    tasks: dict[Any, int] = dataclasses.field(default_factory=dict)


class Pool:
    """Actors that work off tasks; to be used with `with`, which ends them.

    make_actor: starts one more actor and gives its handle; it has `start`, which returns None, and
    `compute`. n_actors: how many to keep alive. names: of the tasks, for messages. job: what `compute`
    gets for a task of this number, made when it is handed out. wants: what an actor needs, for the
    message of a pool that has to wait for it. advice: to whoever's workers died of a task.
    """

    def __init__(
        self,
        make_actor: Callable[[], Any],
        n_actors: int,
        names: Sequence[str],
        job: Callable[[int], Any],
        *,
        wants: str,
        advice: str,
    ) -> None:
        self._make_actor = make_actor
        self._n_actors = n_actors
        self._names, self._job = names, job
        self._wants, self._advice = wants, advice
        self._todo = collections.deque(range(len(names)))
        self._n_left = len(names)
        self._workers: list[_Worker] = []
        self._owners: dict[Any, _Worker] = {}
        self._losses: collections.Counter[int] = collections.Counter()
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

    def run(self) -> Iterator[tuple[int, Any]]:
        """The number of every task with what `compute` made of it, as they come.

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
                    reference = worker.actor.compute.remote(self._job(task))
                    worker.tasks[reference] = task
                    self._owners[reference] = worker

    def _receive(self, reference: Any) -> tuple[int, Any] | None:
        """Take in one answer: values, a worker that has started, or the loss of either."""
        import ray
        from ray import exceptions

        worker = self._owners.pop(reference)
        try:
            answer = ray.get(reference)
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
        return worker.tasks.pop(reference), answer

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
        task = next(iter(worker.tasks.values()))
        self._losses[task] += 1
        if self._losses[task] == ATTEMPTS:
            raise StageError(
                f"{ATTEMPTS} Ray workers died while they computed {self._names[task]}; of the last, "
                f"Ray says: {why} {self._advice}"
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


def room(cpus: float, gpus: float, advice: str, *, one_each: bool = False) -> int:
    """How many workers of this size the cluster has room for; one_each: at most one on a machine.

    Raises `InputError` where there is room for none, with advice.
    """
    import ray

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    n = 0
    for machine in machines:
        fits = [machine.get("CPU", 0.0) // cpus]
        fits += [machine.get("GPU", 0.0) // gpus] if gpus else [1] * one_each
        n += int(min(fits))
    if not n:
        most = {what: max(m.get(what, 0.0) for m in machines) for what in ("CPU", "GPU")}
        raise InputError(
            f"a worker wants {cpus:g} CPUs and {gpus:g} GPUs, and no machine of the Ray cluster has "
            f"both; the largest have {most['CPU']:g} CPUs and {most['GPU']:g} GPUs. {advice}"
        )
    return n
