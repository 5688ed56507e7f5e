"""The fewest parts that carry the behaviour: added one by one by their exact effect, and then doubted.

A ranking of single cells is no circuit: parts can do the same work twice or need one another. Here each
candidate is patched together with all that were chosen before, the best is kept, and what later turned out
to be needless is dropped again. The set is then tested from the other side, by patching everything but it,
and against random sets of its size (compare Conmy et al. 2023, arXiv 2304.14997; Wang et al. 2022).
A greedy search need not find the smallest set of all; what it finds is as good as the table says.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from probes.foundation.digest import short
from probes.foundation.errors import InputError
from probes.foundation.html import html_table
from probes.foundation.progress import bar
from probes.foundation.seeds import stream
from probes.models.loading import Model
from probes.patching.attribution import attribute_cells
from probes.patching.exact import by_site
from probes.patching.jobs import Job, Settings
from probes.patching.measures import LogProbDifference, Metric
from probes.patching.pairs import EncodedPair
from probes.patching.parts import Cell, cell_set
from probes.patching.refusals import check_difference, check_matched, check_resampling, check_room
from probes.patching.result import mean_interval
from probes.patching.sources import Plan
from probes.patching.spans import Column

EXPECTED_STEPS = 10
"""For the time that is said before a search."""
STEP = ("step", "action", "component", "n", "share", "low", "high", "gain")
REACHED, STUCK, FULL = "goal reached", "no part adds enough", "as many parts as allowed"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Circuit:
    """A set of parts and how well it stands.

    members: of the set, in the order in which they were added. steps: one row per step of the search:
        `step`, `action` ("add" or "drop"), `component`, `n` (size after it), `share` (of the effect that
        the set as a whole has, with `low` and `high`, bootstrap 95% over pairs), `gain`.
    share, low, high: of the final set: how much of the difference between the two runs patching it
        makes; "denoise" restores the behaviour, "noise" destroys it.
    rest: the same of all other candidates, patched together: 1 - rest is what the set does alone.
    random: one row per random set of the same size, other than this one: `share`. p: how rare a random set is that does as
        well, (1 + how many) / (1 + tried). reason: why the search stopped.
    """

    members: tuple[str, ...]
    steps: pd.DataFrame
    share: float
    low: float
    high: float
    rest: float
    random: pd.DataFrame
    p: float
    reason: str
    goal: float
    n_candidates: int
    model: str
    model_digest: str
    metric: str
    plan: Plan
    n_pairs: int

    def __repr__(self) -> str:
        return f"Circuit({self._what()}: {', '.join(self.members) or 'nothing'})"

    def _repr_html_(self) -> str:
        return html_table(self.steps, repr(self), floats="{:.3g}")

    def _what(self) -> str:
        verb = "restores" if self.plan.direction == "denoise" else "destroys"
        return (
            f"{self.model} ({short(self.model_digest)}), {self.n_pairs} pairs: {len(self.members)} of "
            f"{self.n_candidates} parts, which {verb} {self.share:.0%} [{self.low:.0%}, {self.high:.0%}] "
            f"(all others {self.rest:.0%}, random sets {self.random['share'].mean():.0%}, p {self.p:.2g}; "
            f"{self.reason})"
        )


def find_circuit(
    model: Model,
    pairs: Sequence[EncodedPair],
    candidates: Sequence[Cell],
    columns: Sequence[Column] = (),
    *,
    direction: str = "denoise",
    values: str = "paired",
    metric: Metric | None = None,
    goal: float = 0.9,
    least_gain: float = 0.01,
    most: int | None = None,
    shortlist: int | None = 64,
    n_random: int = 20,
    n_boot: int = 1000,
    settings: Settings | None = None,
    seed: int = 0,
) -> Circuit:
    """Search the candidates (from `grid_cells`) for a small set that makes a share `goal` of the effect.

    direction: "denoise" for a set that restores the behaviour in the run without the trigger, "noise"
    for one that destroys it in the run with it. least_gain: the share that a part must add. most: parts
    at most, None for all. shortlist: so many candidates are searched, those of the largest effect by
    attribution (one gradient), where there are more; None for all. It bounds the time of a step; all
    candidates stay in what is patched against the set, and in random sets. n_random: random sets of the same size. Embeddings are no candidates of use:
    the token that differs restores everything.
    Raises `InputError` for a goal or sizes outside their ranges, and what `patch_cells` refuses.
    """
    _check(pairs, candidates, goal, most, n_boot)
    metric, plan = metric or LogProbDifference(), Plan(direction, values, seed)
    check_matched(pairs, candidates)
    check_room(pairs, model)
    job = Job(model, pairs, columns, metric, settings or Settings(seed=seed))
    job.look_ahead(candidates)
    unpatched, other = job.unpatched(plan)
    check_difference(metric.name, model.name, unpatched, other, model.dtype)
    difference = float((other - unpatched).mean())
    names = [_called(cell) for cell in candidates]
    searched = list(range(len(candidates)))
    if shortlist is not None and len(candidates) > shortlist:
        searched = _largest(model, pairs, candidates, columns, metric, plan, shortlist)
    steps_at_most = min(most or EXPECTED_STEPS, len(searched))
    job.announce([candidates[i] for i in searched], f"circuit ({direction})", steps_at_most)

    def shares(sets: Sequence[Sequence[int]]) -> np.ndarray:
        """`[set, pair]`: the effect of each set on each pair, as a part of the mean difference."""
        cells = [_joined([candidates[i] for i in members], columns) for members in sets]
        return (job.scores(plan, cells) - unpatched) / difference

    def interval(found: np.ndarray) -> tuple[float, float]:
        low, high = mean_interval(found[None], n_boot, seed) if n_boot else ([np.nan], [np.nan])
        return float(low[0]), float(high[0])

    def note(action: str, i: int, found: np.ndarray) -> None:
        low, high = interval(found)
        share, before = float(found.mean()), float(current.mean())
        row = len(steps), action, names[i], len(members), share, low, high, share - before
        steps.append(dict(zip(STEP, row, strict=True)))

    steps: list[dict[str, object]] = []
    members: list[int] = []
    current, reason, limit = np.zeros(len(pairs)), FULL, min(most or len(searched), len(searched))
    with bar("circuit", total=limit) as shown:
        while len(members) < limit:
            left = [i for i in searched if i not in members]
            found = shares([[*members, i] for i in left])
            best = int(found.mean(1).argmax())
            if found[best].mean() - current.mean() < least_gain:
                reason = STUCK
                break
            members.append(left[best])
            note("add", left[best], found[best])
            current = found[best]
            shown.update(1)
            if current.mean() >= goal:
                reason = REACHED
                break
        while reason == REACHED and len(members) > 1:
            found = shares([[m for m in members if m != i] for i in members])
            best = int(found.mean(1).argmax())
            if found[best].mean() < goal:
                break
            dropped = members.pop(best)
            note("drop", dropped, found[best])
            current = found[best]
    others = [i for i in range(len(candidates)) if i not in members]
    rest = float(shares([others]).mean()) if others else 0.0
    draws = _random_sets(len(candidates), members, n_random, seed)
    random = shares(draws).mean(1) if draws and members else np.zeros(0)
    share, (low, high) = float(current.mean()), interval(current) if members else (np.nan, np.nan)
    return Circuit(
        tuple(names[i] for i in members),
        pd.DataFrame(steps, columns=list(STEP)),
        share, low, high, rest,
        pd.DataFrame({"share": random}),
        (1 + int((random >= share).sum())) / (1 + len(random)),
        reason, goal, len(candidates), model.name, model.digest, metric.name, plan, len(pairs),
    )  # fmt: skip


def _largest(
    model: Model,
    pairs: Sequence[EncodedPair],
    candidates: Sequence[Cell],
    columns: Sequence[Column],
    metric: Metric,
    plan: Plan,
    n: int,
) -> list[int]:
    """The candidates of the largest estimated effect in the sought direction, in their own order."""
    found = attribute_cells(
        model, pairs, candidates, columns, metric=metric, plan=plan, n_boot=0, n_flips=0
    )
    ordered = [cell for members in by_site(candidates).values() for cell in members]
    estimate = dict(zip(map(_called, ordered), found.rows["normalised"], strict=True))
    best = sorted(range(len(candidates)), key=lambda i: -estimate[_called(candidates[i])])
    return sorted(best[:n])


def _joined(cells: Sequence[Cell], columns: Sequence[Column]) -> Cell:
    parts = [part for cell in cells for part in cell.parts]
    return cell_set(parts, columns, f"set of {len(cells)}")


def _called(cell: Cell) -> str:
    name = cell.site + ("" if cell.head is None else f".{cell.head}")
    return name if cell.label == "everywhere" else f"{name} @ {cell.label}"


def _random_sets(n: int, members: Sequence[int], n_random: int, seed: int) -> list[list[int]]:
    """Sets of the same size, drawn by the seed; those that happen to be the found one are left out."""
    if not members:
        return []
    draw = stream(seed, "patching", "random sets")
    drawn = [draw.choice(n, len(members), replace=False).tolist() for _ in range(n_random)]
    return [one for one in drawn if set(one) != set(members)]


def _check(
    pairs: Sequence[EncodedPair],
    candidates: Sequence[Cell],
    goal: float,
    most: int | None,
    n_boot: int,
) -> None:
    if not candidates or not pairs:
        raise InputError(f"nothing to search: {len(candidates)} candidates, {len(pairs)} pairs")
    if not 0 < goal <= 1:
        raise InputError(f"goal is a share of the effect, above 0 and up to 1, not {goal}")
    if most is not None and not 1 <= most <= len(candidates):
        raise InputError(f"a set has 1 to {len(candidates)} of these candidates, not {most}")
    names = [_called(cell) for cell in candidates]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"candidates given twice: {', '.join(twice[:5])}")
    check_resampling(pairs, n_boot)
