"""What is done to the model in each point of a curve: one mode, place, direction and dose."""

import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np

from probes.foundation.digest import digest_bytes, digest_json
from probes.models.loading import Model
from probes.patching.steering import ablated, along, erased, steered
from probes.studies.doses.directions import Axis, Learned
from probes.studies.doses.settings import (
    ABLATE,
    EVERYWHERE,
    LEACE,
    MODES,
    RANDOM,
    TO_DEFECT,
    TO_SAFE,
    DoseConfig,
)


@dataclasses.dataclass(frozen=True)
class Condition:
    """One point of a curve. draw: which of the random directions, 0 of the others."""

    mode: str
    tokens: str
    place: str
    direction: str
    draw: int
    dose: float

    def key(self, learned: Learned) -> str:
        """Equal for conditions that do the same: where every triggered prompt and no other defected,
        the mean difference is the difference."""
        sites = learned.places[self.place]
        given = [digest_bytes(self._data(learned, site)) for site in sites]
        return digest_json([self.mode, self.tokens, list(sites), self.dose, given])

    def _data(self, learned: Learned, site: str) -> bytes:
        if self.direction == LEACE:
            return learned.erasers[site].matrix.tobytes()
        axis = axis_of(self, learned, site)
        put = learned.randoms[site][self.draw] if self.direction == RANDOM else axis.unit
        return put.tobytes() + axis.unit.tobytes() + np.array([axis.low, axis.high]).tobytes()


def conditions(config: DoseConfig, modes: tuple[str, ...] = MODES) -> list[Condition]:
    """All points of all curves but the plain model; LEACE erases and does nothing else."""
    return [
        Condition(mode, tokens, place, kind, draw, dose)
        for tokens in config.tokens
        for place in config.places
        for mode in modes
        if mode == ABLATE or place != EVERYWHERE
        for kind in config.kinds
        if mode == ABLATE or kind != LEACE
        for draw in range(config.n_random if kind == RANDOM else 1)
        for dose in config.doses(mode)
    ]


@contextlib.contextmanager
def applied(model: Model, condition: Condition, learned: Learned) -> Iterator[None]:
    """The model under a condition, the same for prompts with and without the trigger.

    A random direction takes the place of the mean difference: the same amounts, another way.
    """
    sites = list(learned.places[condition.place])
    dose, tokens = condition.dose, condition.tokens
    if condition.direction == LEACE:
        maps = [learned.erasers[site] for site in sites]
        matrices, biases = np.stack([m.matrix for m in maps]), np.stack([m.bias for m in maps])
        with erased(model, sites, matrices, biases, dose=dose, tokens=tokens):
            yield
        return
    axes = [axis_of(condition, learned, site) for site in sites]
    read = np.stack([axis.unit for axis in axes])
    random = condition.direction == RANDOM
    put = np.stack([learned.randoms[s][condition.draw] for s in sites]) if random else read
    with contextlib.ExitStack() as stack:
        match condition.mode:
            case "add":
                pushes = np.stack([a.gap * row for a, row in zip(axes, put, strict=True)])
                stack.enter_context(steered(model, sites, pushes, dose, tokens=tokens))
            case mode:
                targets = [_target(axis, mode) for axis in axes]
                if random:
                    changed = ablated(
                        model, sites, read, to=targets, dose=dose, instead=put, tokens=tokens
                    )
                else:
                    changed = along(model, sites, read, targets, dose=dose, tokens=tokens)
                stack.enter_context(changed)
        yield


def axis_of(condition: Condition, learned: Learned, site: str) -> Axis:
    kind = learned.measure if condition.direction == RANDOM else condition.direction
    return learned.axes[kind][site]


def _target(axis: Axis, mode: str) -> float:
    """The projection that is left at dose 1."""
    return {ABLATE: axis.middle, TO_SAFE: axis.low, TO_DEFECT: axis.high}[mode]
