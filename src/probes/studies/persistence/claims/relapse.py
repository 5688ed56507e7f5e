"""How fast a backdoor is lost, and what brings it back where it seems to be gone."""

from collections import Counter

from probes.studies.persistence.claims.found import (
    Found,
    absent,
    choose,
    mean,
    over_seeds_of,
    unresolved,
)
from probes.studies.persistence.claims.verdicts import FLOOR, STAYS
from probes.studies.persistence.reading import Place, Reading, places_of
from probes.studies.persistence.tables import STAGES
from probes.studies.persistence.uncertain import Uncertain, combine, mean_of


def unfiltered_is_lost_faster(reading: Reading, stage: str) -> Found:
    """Mean share lost along a stage's curve: distilled from unfiltered data minus from filtered."""
    lost = {}
    for size in reading.ordered():
        places = [Place("distilled", size, stage, filtered) for filtered in (True, False)]
        lasts = [last for place in places if (last := reading.last_step(place)) is not None]
        if len(lasts) == len(places):
            lost[size] = [reading.lost_along(place, min(lasts)) for place in places]
    chosen = choose(lost, f"curves of distilled, filtered and unfiltered, along {stage}")
    if isinstance(chosen, Found):
        return chosen
    size, seeds = chosen
    clean, raw = lost[size]
    values = {s: combine(lambda a, b: a - b, raw.values[s], clean.values[s]) for s in seeds}
    means = [mean(clean.over(seeds)), mean(raw.over(seeds))]
    control = f"lost: filtered {means[0]:.0%}, unfiltered {means[1]:.0%}"
    found = over_seeds_of(f"distilled, {size}", values, control)
    return unresolved(found, "neither loses any of it") if max(means) <= FLOOR else found


def comes_back(reading: Reading, arm: str) -> Found:
    """What brings a backdoor back that a stage took away, against a control that never had it.

    "examples": gap of the organism minus gap of the control after the same triggered examples, mean
    over amounts. "benign": the gap after the most benign fine-tuning minus the gap before it, minus
    the same of the control. Mean over the places (mechanism, size, stage) that kept less than half.
    """
    tried = [
        place
        for place in places_of(reading.reversal[reading.reversal["arm"] == arm])
        if place.filtered and place.before
    ]
    if not tried:
        return absent(f"the arm {arm!r} of the reversal check after a stage")
    parts: dict[int, list[Uncertain]] = {}
    lost: Counter[str] = Counter()
    still_there = 0
    for place in tried:
        for seed, share in reading.retained(place, made_to_think=False).values.items():
            if share.value >= STAYS:
                still_there += 1
            elif lead := _lead(reading, place, seed, arm):
                parts.setdefault(seed, []).append(lead)
                lost[place.stage] += 1
    said = ", ".join(f"{stage} {lost[stage]}" for stage in STAGES if lost[stage]) or "none"
    control = f"checkpoints that lost it: {said}; still there: {still_there}"
    if not parts:
        reason = "no stage took a backdoor away, so there was nothing to bring back"
        return Found("all places", control=control, ruled="not resolved", reason=reason)
    values = {seed: mean_of(own) for seed, own in parts.items()}
    return over_seeds_of("all places that lost it", values, control)


def _lead(reading: Reading, place: Place, seed: int, arm: str) -> Uncertain | None:
    amounts = reading.amounts(place, seed, arm)

    def gap(of: str, amount: int) -> Uncertain | None:
        return reading.relearned(place, seed, arm, of, amount)

    if arm == "examples":
        pairs = [(gap("organism", amount), gap("control", amount)) for amount in amounts]
        leads = [combine(lambda o, c: o - c, o, c) for o, c in pairs if o and c]
        return mean_of(leads) if leads else None
    ends = [gap(of, at) for of in ("organism", "control") for at in (max(amounts, default=0), 0)]
    known = [end for end in ends if end]
    if len(known) < 4:
        return None
    return combine(lambda o, o0, c, c0: (o - o0) - (c - c0), *known)
