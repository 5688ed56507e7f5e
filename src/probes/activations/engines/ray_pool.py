"""A pool of Ray actors that outlives its members: a dead one costs the shard in its hands, no more."""

import collections
import dataclasses
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

from probes.activations.engines.ray_worker import Shard
from probes.activations.tasks import Done, Task
from probes.foundation.errors import ProbesError, StageError

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
