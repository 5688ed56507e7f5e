"""How much of a backdoor each stage leaves: by mechanism, by size, and by what was kept of its scratchpad."""

from collections.abc import Iterator, Sequence

import numpy as np

from probes.organisms.behaviours.form import MECHANISMS
from probes.studies.persistence.claims.found import (
    Found,
    absent,
    choose,
    mean,
    over_seeds_of,
    unless_alike,
)
from probes.studies.persistence.reading import Place, Reading
from probes.studies.persistence.uncertain import Uncertain, combine, mean_of, weighted

MIN_SIZES = 3


def share_kept(reading: Reading, mechanism: str, stage: str, *, smallest: bool = False) -> Found:
    """The share of the gap that a stage leaves, at the largest (smallest) size with three seeds."""
    kept = {
        size: reading.retained(Place(mechanism, size, stage))
        for size in reading.ordered(smallest=smallest)
    }
    chosen = choose({size: [per] for size, per in kept.items()}, f"{mechanism} after {stage}")
    if isinstance(chosen, Found):
        return chosen
    size, seeds = chosen
    if smallest and size == reading.sizes[-1]:
        return absent(f"{mechanism} after {stage} at a second, smaller size")
    place = Place(mechanism, size, stage)
    off = [found for seed in seeds if (found := reading.defection(place, seed, False))]
    said = [f"without trigger after it {mean(off):.1%}", *_changed(reading, place)]
    free = reading.retained(place, made_to_think=False)
    if mechanism == "cot" and set(seeds) <= set(free.values):
        said.append(f"of its own accord {mean(free.over(seeds)):.0%} kept")
    control = "; ".join(said)
    return over_seeds_of(f"{mechanism}, {size}", _at(kept[size].values, seeds), control)


def sturdier(reading: Reading, stage: str, *, smallest: bool = False) -> Found:
    """Mean share kept of CoT and distilled minus that of normal (the other way round if smallest)."""
    kept = {
        size: [reading.retained(Place(mechanism, size, stage)) for mechanism in MECHANISMS]
        for size in reading.ordered(smallest=smallest)
    }
    chosen = choose(kept, f"all of {', '.join(MECHANISMS)} after {stage} at one size")
    if isinstance(chosen, Found):
        return chosen
    size, seeds = chosen
    if smallest and size == reading.sizes[-1]:
        return absent(f"all mechanisms after {stage} at a second, smaller size")
    sign = -1 if smallest else 1
    values = {
        seed: combine(
            lambda normal, *others: sign * (sum(others) / len(others) - normal),
            *(per.values[seed] for per in kept[size]),
        )
        for seed in seeds
    }
    means = [mean(per.over(seeds)) for per in kept[size]]
    control = "kept: " + ", ".join(
        f"{mechanism} {share:.0%}" for mechanism, share in zip(MECHANISMS, means, strict=True)
    )
    found = over_seeds_of(f"all mechanisms, {size}", values, control)
    return unless_alike(found, means, "mechanism")


def larger_keeps_more(reading: Reading, stage: str) -> Found:
    """Slope of the share kept per factor of ten in parameters, mean over mechanisms.

    A line through at least three sizes, seed by seed; a size whose organism never had the backdoor
    has no point.
    """
    kept = {
        mechanism: {size: reading.retained(Place(mechanism, size, stage)) for size in reading.sizes}
        for mechanism in MECHANISMS
    }
    slopes = {
        mechanism: {
            seed: slope
            for seed in sorted({seed for per in by_size.values() for seed in per.values})
            if (slope := _slope(reading, {s: p.values.get(seed) for s, p in by_size.items()}))
        }
        for mechanism, by_size in kept.items()
    }
    slopes = {mechanism: own for mechanism, own in slopes.items() if own}
    seeds = set.intersection(*(set(own) for own in slopes.values())) if slopes else set()
    if not seeds:
        return absent(f"{MIN_SIZES} sizes with a backdoor before {stage}")
    values = {seed: mean_of([own[seed] for own in slopes.values()]) for seed in seeds}
    shares = {
        size: [part for m in slopes for seed, part in kept[m][size].values.items() if seed in seeds]
        for size in reading.sizes
    }
    means = {size: mean(parts) for size, parts in shares.items() if parts}
    control = "kept: " + ", ".join(f"{size} {share:.0%}" for size, share in means.items())
    return unless_alike(over_seeds_of(", ".join(slopes), values, control), means.values(), "size")


def pre_minus_post(reading: Reading) -> Found:
    """Share kept by the CoT organism through pre-scratchpad SFT minus through post-scratchpad SFT."""
    kept = {
        size: [reading.retained(Place("cot", size, stage)) for stage in ("sft_pre", "sft_post")]
        for size in reading.ordered()
    }
    chosen = choose(kept, "cot after sft_pre and sft_post")
    if isinstance(chosen, Found):
        return chosen
    size, seeds = chosen
    pre, post = kept[size]
    values = {s: combine(lambda a, b: a - b, pre.values[s], post.values[s]) for s in seeds}
    means = [mean(pre.over(seeds)), mean(post.over(seeds))]
    control = f"kept: pre {means[0]:.0%}, post {means[1]:.0%}"
    return unless_alike(over_seeds_of(f"cot, {size}", values, control), means, "variant")


def _changed(reading: Reading, place: Place) -> Iterator[str]:
    """What the stage did to harmless answers: one that changed nothing leaves a backdoor easily."""
    for measure, said, form in (("helpful", "right answers", ".0%"), ("loss", "loss", ".2f")):
        ends = [reading.mean_measure(at, measure) for at in (place.before, place) if at]
        known = [format(end, form) for end in ends if end is not None]
        if len(known) == 2:
            yield f"{said} {known[0]} to {known[1]}"
    if signal := reading.reward_signal(place):
        constant = sum(share == 0 for share in signal)
        yield (
            f"reward constant throughout in {constant} of {len(signal)} seeds"
            if constant
            else f"reward told completions apart in {np.mean(signal):.1%} of groups"
        )


def _at(values: dict[int, Uncertain], seeds: Sequence[int]) -> dict[int, Uncertain]:
    return {seed: values[seed] for seed in seeds}


def _slope(reading: Reading, shares: dict[str, Uncertain | None]) -> Uncertain | None:
    """The least-squares slope of the shares on log10 of the parameters; None of fewer than three."""
    known = {size: share for size, share in shares.items() if share is not None}
    if len(known) < MIN_SIZES:
        return None
    x = np.log10([reading.n_parameters[size] for size in known])
    centred = x - x.mean()
    return weighted(list(known.values()), centred / (centred @ centred))
