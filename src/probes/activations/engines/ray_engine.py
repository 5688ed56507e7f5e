"""Shards computed by the workers of a Ray cluster, byte for byte as this process would compute them."""

import dataclasses
from collections.abc import Iterator, Sequence

from probes.activations.engines.ray_pool import Pool
from probes.activations.engines.ray_worker import ModelWorker
from probes.activations.filling import positive
from probes.activations.format import Maker
from probes.activations.tasks import Done, Task
from probes.foundation.cluster import connected
from probes.foundation.errors import InputError
from probes.models.loading import Model
from probes.models.source import Source


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
