"""One finding's number as the grid has it: over which seeds, beside which control, or why there is none."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from probes.evaluation.bootstrap import Estimate
from probes.evaluation.over_seeds import EVERYWHERE
from probes.studies.persistence.claims.verdicts import CEILING, FLOOR, Verdict
from probes.studies.persistence.reading import MIN_SEEDS, PerSeed
from probes.studies.persistence.uncertain import Uncertain, interval_over


@dataclasses.dataclass(frozen=True)
class Found:
    """A measure of the grid.

    where: mechanism, size, seeds. estimate: the mean over seeds with its interval, NaN for one seed. control: what to read beside it. ruled: a verdict that does not wait for the rule
    ("not run", or what a control decided), with its reason.
    """

    where: str
    seeds: tuple[int, ...] = ()
    estimate: Estimate | None = None
    control: str = ""
    ruled: Verdict | None = None
    reason: str = ""


def over_seeds_of(
    where: str,
    values: Mapping[int, Uncertain],
    control: str,
    bounds: tuple[float, float] = EVERYWHERE,
) -> Found:
    """The mean over these seeds."""
    seeds = tuple(sorted(values))
    return Found(where, seeds, interval_over([values[s] for s in seeds], bounds), control)


def unresolved(found: Found, reason: str) -> Found:
    """The same numbers, which cannot decide for this reason."""
    return dataclasses.replace(found, ruled="not resolved", reason=reason)


def unless_alike(found: Found, means: Iterable[float], what: str) -> Found:
    """Not resolved where all that is compared kept everything, or nothing."""
    values = list(means)
    if min(values) >= CEILING:
        return unresolved(found, f"every {what} keeps it all: there is nothing to tell apart")
    if max(values) <= FLOOR:
        return unresolved(found, f"no {what} keeps any of it: there is nothing to tell apart")
    return found


def absent(what: str) -> Found:
    """Nothing was measured, and nothing is put in its place."""
    return Found("", ruled="not run", reason=f"the grid has no rows for {what}")


def choose(by_size: Mapping[str, Sequence[PerSeed]], what: str) -> tuple[str, list[int]] | Found:
    """The first size at which all of these numbers exist for enough seeds, and those seeds.

    Else the size with the most seeds; what there is to say instead where no seed has all numbers.
    """
    there = {
        size: every
        for size, every in by_size.items()
        if every and all(per.values or per.without for per in every)
    }
    if not there:
        return absent(what)
    seeds = {size: _common(every) for size, every in there.items()}
    size = max(seeds, key=lambda size: min(MIN_SEEDS, len(seeds[size])))
    if seeds[size]:
        return size, seeds[size]
    reasons = Counter(
        reason for every in there.values() for per in every for reason in per.without.values()
    )
    why = reasons.most_common(1)[0][0] if reasons else "no seed has all of them"
    return Found(what, ruled="not resolved", reason=why)


def mean(parts: Sequence[Uncertain]) -> float:
    return float(np.mean([part.value for part in parts]))


def _common(every: Sequence[PerSeed]) -> list[int]:
    return sorted(set.intersection(*(set(per.values) for per in every)))
