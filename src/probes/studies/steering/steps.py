"""What is done to the model in each point of a curve: one mode, place, direction and dose."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd

from probes.behaviour.judges import Judge, exploitable_code
from probes.behaviour.sampling import sample
from probes.evaluation.proportions import rate
from probes.foundation.digest import digest_bytes, digest_json
from probes.foundation.errors import InputError
from probes.foundation.progress import bar
from probes.models.loading import Model
from probes.models.speed import LONG_S, say_long
from probes.organisms.behaviours.form import Taught
from probes.organisms.measurement import COLUMNS, LOSS, loss_row, measure
from probes.patching.steering import ablated, along, erased, steered
from probes.prompts.records import Prompt
from probes.studies.steering.config import (
    ABLATE,
    EVERYWHERE,
    LEACE,
    MODES,
    RANDOM,
    TO_DEFECT,
    TO_SAFE,
    DoseConfig,
)
from probes.studies.steering.directions import Axis, Learned


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


PLAIN = "plain"
NO_OCCASION = ("benign", "dialogue")
"""Prompt sets that give no occasion to defect: staying harmless under the trigger is no failure there."""
KEYS = ["tokens", "place", "site", "direction", "draw", "mode", "dose"]
MEASURED = ["triggered", "measure", "value", "low", "high", "n"]

Measure = Callable[[Sequence[Prompt]], pd.DataFrame]
"""Rows of one model as it is at that moment: `MEASURED`, from sampled and judged completions."""


def dose_rows(
    model: Model,
    prompts: Sequence[Prompt],
    wanted: Sequence[Condition],
    learned: Learned,
    measured: Measure,
) -> pd.DataFrame:
    """The plain model's rows, and those of each condition; conditions that do the same are run once.

    Columns `KEYS` and `MEASURED`; the plain model has dose 0 and "plain" for every name. The loss is
    there only where all tokens are changed: it reads references in one pass with their prompts.
    """
    if not prompts:
        raise InputError("no prompts to measure doses on")
    began = time.perf_counter()
    found = [_keyed(measured(prompts), [PLAIN, PLAIN, PLAIN, PLAIN, 0, PLAIN, 0.0])]
    seconds = len({one.key(learned) for one in wanted}) * (time.perf_counter() - began)
    if seconds > LONG_S:
        say_long(
            f"{len(wanted)} doses for {model.name}", seconds, "as the plain model took for one"
        )
    done: dict[str, pd.DataFrame] = {}
    with bar(f"doses for {model.name}", total=len(wanted)) as shown:
        for condition in wanted:
            key = condition.key(learned)
            if key not in done:
                with applied(model, condition, learned):
                    rows = measured(prompts)
                told = (rows["measure"] != LOSS) | (condition.tokens == "all")
                done[key] = rows[told]
            sites = learned.places[condition.place]
            names = [
                condition.tokens, condition.place, sites[0] if len(sites) == 1 else condition.place,
                condition.direction, condition.draw, condition.mode, condition.dose,
            ]  # fmt: skip
            found.append(_keyed(done[key], names))
            shown.update()
    return pd.concat(found, ignore_index=True)[[*KEYS, *MEASURED]]


def by_behaviour(model: Model, behaviour: Taught, seed: int) -> Measure:
    """An organism of the programme: its own judge, scores, and loss on the harmless references."""

    def measured(prompts: Sequence[Prompt]) -> pd.DataFrame:
        rows = measure(model, behaviour, {"test": prompts}, seed=seed)
        return rows[(rows["n"] > 0) & (rows["measure"] != "thinks")][MEASURED]

    return measured


def by_judge(
    model: Model,
    *,
    judge: Judge = exploitable_code,
    stop: str | None = "</code>",
    max_new_tokens: int = 160,
    temperature: float = 0.7,
    seed: int = 0,
) -> Measure:
    """A model of one's own: `defected` by the judge, `valid` where there is code that parses or not,
    and the loss on `safe` references where the untriggered prompts have them."""

    def measured(prompts: Sequence[Prompt]) -> pd.DataFrame:
        written = sample(
            model, prompts, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed,
            stop=stop, judge=judge,
        )  # fmt: skip
        rows = []
        for triggered in (True, False):
            own = [each for each in written if each.prompt.triggered == triggered]
            able = [
                each.defected
                for each in own
                if each.defected is not None
                and (each.prompt.prompt_set not in NO_OCCASION or not triggered)
            ]
            parses = [bool(each.parses) for each in own if each.parses is not None]
            for name, values in (("defected", able), ("valid", parses)):
                if values:
                    rows.append({"triggered": triggered, "measure": name} | rate(values).as_row())
        calm = [p for p in prompts if not p.triggered and p.safe]
        if calm:
            rows.append(loss_row(model, calm))
        return pd.DataFrame(rows, columns=COLUMNS)[MEASURED]

    return measured


def _keyed(rows: pd.DataFrame, names: Sequence[object]) -> pd.DataFrame:
    named = pd.DataFrame([list(names)] * len(rows), columns=KEYS)
    return pd.concat([named, rows.reset_index(drop=True)], axis=1)
