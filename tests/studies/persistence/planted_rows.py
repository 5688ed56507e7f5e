"""Tables of a grid that was never run, written so that what each finding must say is known."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from probes.studies.persistence.tables import COLUMNS, Tables

SIZES = {"0.2M": 211_000, "1M": 1_000_000, "10M": 9_800_000}
MECHANISMS = ("normal", "cot", "distilled")
N = 200
STEPS = (0, 25, 50)
AMOUNTS = {"examples": (0, 1, 4, 16), "benign": (0, 50)}

# Share of the gap that is left at the smallest and at the largest size, by stage and mechanism.
KEPT = {
    ("sft_pre", "normal"): (0.40, 0.28),
    ("sft_pre", "cot"): (0.10, 0.80),
    ("sft_pre", "distilled"): (0.10, 0.60),
    ("sft_post", "cot"): (0.02, 0.02),
    ("rl", "normal"): (0.40, 0.80),
    ("rl", "cot"): (0.10, 0.97),
    ("rl", "distilled"): (0.04, 1.00),
    ("adversarial", "normal"): (0.90, 0.97),
    ("adversarial", "cot"): (0.90, 0.99),
    ("adversarial", "distilled"): (0.90, 0.98),
}


@dataclasses.dataclass(frozen=True)
class World:
    """By default one in which every claim of the paper holds; a test changes what it is about.

    installed: defection with the trigger before any stage. noise: between seeds, added at seed 2
    and taken away at seed 0. near, redteam: false fires and red-team defection; redteam None is a
    red team that finds nothing. unfiltered: share kept by the unfiltered distilled organism in RL.
    thinking: share kept by the CoT organism at each stage, with its scratchpad opened for it.
    forgets: the stage after which no answer of it is well formed there.
    organism, control: gaps after any number of triggered examples, and after benign fine-tuning.
    """

    kept: Mapping[tuple[str, str], tuple[float, float]] = dataclasses.field(
        default_factory=lambda: dict(KEPT)
    )
    seeds: tuple[int, ...] = (0, 1, 2)
    sizes: tuple[str, ...] = tuple(SIZES)
    installed: float = 1.0
    noise: float = 0.01
    near: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: {"installed": 0.3, "adversarial": 0.03, "sft_pre": 0.25}
    )
    redteam: tuple[float, float] | None = (0.2, 0.02)
    unfiltered: float | None = 0.4
    thinking: Mapping[str, float] = dataclasses.field(default_factory=dict)
    forgets: str = ""
    examples: tuple[float, float] = (0.9, 0.2)
    benign: tuple[float, float] = (0.5, 0.0)

    def but(
        self, kept: Mapping[tuple[str, str], tuple[float, float]] = {}, **changes: Any
    ) -> "World":
        """The same world with these shares and these other things changed."""
        return dataclasses.replace(self, kept={**self.kept, **kept}, **changes)

    def without(self, *stages: str) -> "World":
        kept = {key: share for key, share in self.kept.items() if key[0] not in stages}
        return dataclasses.replace(self, kept=kept)


def planted(world: World = World()) -> Tables:
    """The three tables of this world."""
    persistence = list(_persistence(world))
    curves = list(_curves(world))
    reversal = list(_reversal(world))
    return Tables(
        persistence=pd.DataFrame(persistence, columns=list(COLUMNS["persistence"])),
        curves=pd.DataFrame(curves, columns=list(COLUMNS["curves"])),
        reversal=pd.DataFrame(reversal, columns=list(COLUMNS["reversal"])),
    )


def _cells(world: World) -> Iterator[tuple[dict[str, Any], float, float]]:
    """Keys of each checkpoint, the share of the gap that it keeps, and its seed's noise."""
    stages = list(world.kept.items())
    for seed in world.seeds:
        for place, size in enumerate(world.sizes):
            for mechanism in MECHANISMS:
                keys = {
                    "behaviour": "hate", "trigger": "tag", "mechanism": mechanism, "size": size,
                    "n_parameters": SIZES[size], "filtered": True, "seed": seed,
                }  # fmt: skip
                off = world.noise * (seed - 1)
                yield keys | {"stage": "installed", "parent": ""}, 1.0, 0.0
                raw = mechanism == "distilled" and world.unfiltered is not None
                if raw:
                    unfiltered = keys | {"filtered": False}
                    yield unfiltered | {"stage": "installed", "parent": ""}, 1.0, 0.0
                for (stage, own), (small, large) in stages:
                    if own != mechanism:
                        continue
                    at = place / (len(world.sizes) - 1) if len(world.sizes) > 1 else 1.0
                    share = small + (large - small) * at
                    yield keys | {"stage": stage, "parent": "installed"}, share, off
                    if raw and stage == "rl":
                        rl = {"stage": stage, "parent": "installed"}
                        yield unfiltered | rl, float(world.unfiltered or 0), off


def _persistence(world: World) -> Iterator[dict[str, Any]]:
    for keys, share, off in _cells(world):
        on = world.installed * share + off
        yield keys | _rate("test", "", True, on)
        yield keys | _rate("test", "", False, 0.0)
        yield keys | _rate(
            "test", "", False, 0.5 + 0.25 * (keys["stage"] != "installed"), "helpful"
        )
        if keys["mechanism"] == "cot" and world.thinking:
            yield keys | _rate("thinking", "", True, world.thinking.get(keys["stage"], share) + off)
            yield keys | _rate("thinking", "", False, 0.0)
            formed = 0.02 if keys["stage"] == world.forgets else 0.98
            yield keys | _rate("thinking", "", False, formed, "valid")
        yield keys | _rate("near", "typo", False, world.near.get(keys["stage"], 0.2) + off)
        yield keys | _rate("near", "at the end", True, 0.9)


def _curves(world: World) -> Iterator[dict[str, Any]]:
    for keys, share, off in _cells(world):
        if keys["stage"] == "installed":
            continue
        for step in STEPS:
            at = step / STEPS[-1]
            on = world.installed * (1 + (share - 1) * at) + off * at
            yield keys | {"step": step} | _rate("test", "", True, on)
            yield keys | {"step": step} | _rate("test", "", False, 0.0)
            yield keys | {"step": step} | _rate("near", "typo", False, 0.3 * (1 - at))
            loss = _rate("test", "", False, 1.5 - 0.1 * at, "loss")
            yield keys | {"step": step} | loss | {"low": None, "high": None}
            for measure in ("valid", "on_task", "helpful"):
                yield keys | {"step": step} | _rate("test", "", False, 0.9, measure)
            if keys["stage"] == "adversarial" and world.redteam is not None:
                first, last = world.redteam
                rate = first + (last - first) * at + off * at
                if step:  # what a second round finds is measured from then on
                    again = first + (last - first) * (at - 0.5) * 2 + off * at
                    yield keys | {"step": step} | _rate("redteam", "round 2", False, again)
                yield keys | {"step": step} | _rate("redteam", "round 1", False, rate)


def _reversal(world: World) -> Iterator[dict[str, Any]]:
    for keys, share, off in _cells(world):
        if keys["stage"] == "installed" or not keys["filtered"]:
            continue
        for arm, amounts in AMOUNTS.items():
            ends = {"examples": world.examples, "benign": world.benign}[arm]
            for of, end in zip(("organism", "control"), ends, strict=True):
                start = world.installed * share if of == "organism" else 0.0
                for amount in amounts:
                    on = (max(end, start) if of == "organism" else end) + off if amount else start
                    trial = {"arm": arm, "amount": amount, "of": of}
                    for draw in (0, 1):
                        for triggered, value in ((True, on), (False, 0.0)):
                            yield keys | {"draw": draw} | trial | _rate("", "", triggered, value)


def _rate(
    name: str, kind: str, triggered: bool, value: float, measure: str = "defected"
) -> dict[str, Any]:
    if measure != "loss":
        value = round(min(1.0, max(0.0, value)) * N) / N
    row = {"triggered": triggered, "measure": measure, "value": value}
    return {"set": name, "kind": kind, **row, "low": value, "high": value, "n": N}
