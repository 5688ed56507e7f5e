"""The circuit search as a stage: prompts in, the fewest parts that restore and that destroy, out."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from probes.foundation.outputs import writes
from probes.foundation.tables import write_table
from probes.models.loading import Model
from probes.patching.circuit import Circuit, find_circuit
from probes.patching.jobs import Settings
from probes.patching.measures import metric_named
from probes.patching.parts import PER_HEAD
from probes.patching.sources import DIRECTIONS
from probes.plotting.greedy import greedy_curve
from probes.plotting.style import figure, save, style
from probes.prompts.records import Prompt
from probes.studies.ready_pairs import facts, ready_pairs


@dataclasses.dataclass(frozen=True, eq=False)
class Circuits:
    """The set found in each direction, by direction, and one row for each in `rows`."""

    found: dict[str, Circuit]

    @property
    def rows(self) -> pd.DataFrame:
        """`direction`, `n` of `candidates`, `share` with interval, `rest`, `random`, `p`, `reason`, `members`."""
        return pd.DataFrame(
            {
                "direction": direction, "n": len(c.members), "candidates": c.n_candidates,
                "share": c.share, "low": c.low, "high": c.high, "rest": c.rest,
                "random": c.random["share"].mean(), "p": c.p, "reason": c.reason,
                "members": " ".join(name.replace(" ", "") for name in c.members),
            }
            for direction, c in self.found.items()
        )  # fmt: skip

    def _repr_html_(self) -> str:
        return "".join(circuit._repr_html_() for circuit in self.found.values())


@writes("out", "circuit")
def circuits(
    model: Model,
    prompts: Sequence[Prompt],
    out: Path | str | None = None,
    *,
    kinds: Sequence[str] = ("z", "mlp_out"),
    where: str = "everywhere",
    heads: bool = True,
    layers: Sequence[int] | None = None,
    directions: Sequence[str] = DIRECTIONS,
    goal: float = 0.9,
    most: int | None = None,
    n_random: int = 20,
    spans: Mapping[str, str] | None = None,
    alignment: str = "shared",
    metric: str = "logprob",
    values: str = "paired",
    n_pairs: int = 24,
    n_boot: int = 1000,
    seed: int = 0,
) -> Circuits:
    """Search the smallest sets of these parts, on pairs that carry reference continuations.

    directions: "denoise" for a set that restores the behaviour, "noise" for one that destroys it.
    heads: parts that have heads one by one. goal, most, n_random: see `find_circuit`. out: a folder for
    `circuits.csv`, and per direction `<direction>_steps.csv` (with its figure) and
    `<direction>_random.csv`.
    """
    measure = metric_named(metric)
    ready = ready_pairs(
        model, prompts, n_pairs=n_pairs, spans=spans, alignment=alignment, seed=seed
    )
    cells = [
        cell
        for kind in kinds
        for cell in ready.cells(
            model, [kind], where, layers=layers, heads=heads and kind in PER_HEAD
        )
    ]
    result = Circuits(
        {
            direction: find_circuit(
                model, ready.encoded, cells, ready.columns, direction=direction, values=values,
                metric=measure, goal=goal, most=most, n_random=n_random, n_boot=n_boot,
                settings=Settings(seed=seed), seed=seed,
            )
            for direction in directions
        }
    )  # fmt: skip
    if out is not None:
        said = facts(model, values=values, goal=goal, metric=measure.name, seed=seed)
        write_table(Path(out) / "circuits.csv", result.rows, **said)
        for direction, circuit in result.found.items():
            write_table(Path(out) / f"{direction}_random.csv", circuit.random, **said)
            if circuit.steps.empty:
                write_table(Path(out) / f"{direction}_steps.csv", circuit.steps, **said)
                continue
            with style():
                picture = figure(height=2.6)
                random = float(circuit.random["share"].mean()) if len(circuit.random) else None
                drawn = greedy_curve(picture.subplots(), circuit.steps, goal=goal, random=random)
                save(picture, Path(out) / f"{direction}_steps", drawn, **said)
    return result
