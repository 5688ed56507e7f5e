"""What runs inside a Ray worker: the model, loaded once, and the shards that it is asked for."""

import dataclasses
import platform
import warnings

import numpy as np
import torch
from torch import Tensor

from probes.activations.compute import Job, compute
from probes.activations.filling import make_maker
from probes.activations.format import Maker
from probes.activations.layout import TENSORS
from probes.foundation.errors import InputError
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
