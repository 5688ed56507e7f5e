"""What runs inside a Ray worker: the model, loaded once, and the shards that it is asked for."""

import dataclasses
import platform
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from probes.activations.compute import Job, compute
from probes.activations.engine import Done, Task
from probes.activations.format import Maker
from probes.activations.layout import TENSORS
from probes.activations.publication import make_maker, positive
from probes.foundation.cluster import connected
from probes.foundation.errors import InputError
from probes.foundation.workers import Pool, room
from probes.models.identity import Identity
from probes.models.loading import DTYPES, Model, for_workers, load_from
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
        source = for_workers(model)
        import ray

        with connected(self.address):
            cpus, gpus, n_actors = self._fit(model, maker)

            def make_actor() -> object:
                # A worker that dies is replaced by the pool, where its tasks are known.
                actor = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0)(ModelWorker)
                return actor.remote(source, model.identity, maker)

            with Pool(
                make_actor,
                min(n_actors, len(tasks)),
                [task.file for task in tasks],
                lambda number: tasks[number].job(),
                wants=f"{cpus:g} CPUs and {gpus:g} GPUs",
                advice="If it was killed for its memory, choose a smaller token_budget, or begin anew "
                "with smaller shards.",
            ) as pool:
                for number, shard in pool.run():
                    for category, message in shard.warned:
                        warnings.warn(message, category, stacklevel=2)
                    yield tasks[number], shard.values(tasks[number].dtype)

    def _fit(self, model: Model, maker: Maker) -> tuple[float, float, int]:
        """CPUs and GPUs of an actor, and how many such actors to keep."""
        import ray

        cpus = self.cpus_per_actor
        if cpus is None:
            machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            most = max(machine.get("CPU", 0.0) for machine in machines)
            cpus = max(1.0, min(float(maker.n_threads), most))
        gpus = n_gpus(model) if self.gpus_per_actor is None else self.gpus_per_actor
        # A device that Ray does not count, such as mps, is one to a machine.
        n_actors = self.n_actors or room(
            cpus, gpus, one_each=maker.device != "cpu",
            advice="Give smaller cpus_per_actor or gpus_per_actor, or n_actors if the cluster will grow",
        )  # fmt: skip
        return float(cpus), float(gpus), n_actors


def n_gpus(model: Model) -> int:
    """On how many GPUs of this machine the weights of a model lie."""
    places = {weight.device for weight in model.hf.parameters()}
    return sum(place.type == "cuda" for place in places)
