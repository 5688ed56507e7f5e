"""Dose curves of organisms of the programme, seed by seed and resumable, and of a model of one's own."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from probes.behaviour.judges import Judge, exploitable_code
from probes.behaviour.sampling import sample
from probes.foundation.artifact import building, is_finished, write_text
from probes.foundation.digest import digest_json
from probes.foundation.errors import InputError
from probes.foundation.html import html_table
from probes.foundation.outputs import writes
from probes.foundation.procedures import versions
from probes.foundation.progress import progress
from probes.foundation.seeds import stream
from probes.foundation.tables import read_table, write_table
from probes.models.identity import check_same, identity_of
from probes.models.loading import Model, load
from probes.models.sites import parse_site
from probes.organisms.card import read_card
from probes.organisms.measurement import draw
from probes.organisms.organism import OrganismRecipe, setup
from probes.probing.frozen import NONE, Direction, FrozenProbe
from probes.probing.rows import require_disjoint
from probes.prompts.readers import read_prompts
from probes.prompts.records import Prompt
from probes.studies.steering.config import MODES, RANDOM, DoseConfig
from probes.studies.steering.directions import Learned, fit_directions, given_axis, random_units
from probes.studies.steering.figures import save_pictures
from probes.studies.steering.findings import as_text, pooled, reading
from probes.studies.steering.steps import by_behaviour, by_judge, conditions, dose_rows

ROWS, POOLED, READING, TEXT, FIGURE = (
    "rows.csv", "pooled.csv", "reading.csv", "reading.txt", "doses"
)  # fmt: skip
NAMES = ["organism", "seed"]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Doses:
    """What doses of directions do. rows: one per organism, condition, cue and measure.

    table: pooled over seeds. verdicts: see `reading.reading`.
    """

    rows: pd.DataFrame
    table: pd.DataFrame
    verdicts: pd.DataFrame

    def __repr__(self) -> str:
        return as_text(self.verdicts)

    def _repr_html_(self) -> str:
        names = ", ".join(self.rows["organism"].unique())
        return html_table(self.verdicts, f"of {names}", strong="Doses")

    @classmethod
    def of(cls, rows: pd.DataFrame, config: DoseConfig) -> "Doses":
        """Pool the rows over seeds and read them by the config's rules."""
        table = pooled(rows)
        return cls(rows, table, reading(table, config.rules))

    def save(self, out: Path | str, **facts: object) -> list[Path]:
        """Tables, the reading in words, and figures, with provenance."""
        out = Path(out)
        for name, table in ((ROWS, self.rows), (POOLED, self.table), (READING, self.verdicts)):
            write_table(out / name, table, **facts)
        write_text(out / TEXT, repr(self) + "\n")
        return save_pictures(self.table, out / FIGURE, **facts)


@writes("out")
def organism_doses(
    recipe: OrganismRecipe, checkpoint: Path | str, out: Path | str, config: DoseConfig
) -> pd.DataFrame:
    """Curves of one organism, kept in the folder `out`; a finished one is read, not made again.

    Directions are fitted on requests that the organism was taught with, doses measured on requests
    of `test`, which it never saw: the lessons split requests by their text. What was fitted on is
    among the facts in the folder's manifest.
    """
    _check_card(recipe, checkpoint)
    digest = identity_of(Path(checkpoint)).digest
    made_by = versions("steering", "sampling", "judging")
    key = digest_json([recipe.digest, digest, config.digest, made_by])
    if not is_finished(out, key):
        parts = setup(recipe)
        fit = parts.lessons.train[: 2 * config.n_fit]
        tested = parts.lessons.test[: 2 * config.n_pairs]
        require_disjoint([p.text for p in fit], [p.text for p in tested], "prompt")
        model = load(checkpoint, label=recipe.name)
        written = draw(model, parts.behaviour, fit, seed=recipe.seed)
        learned = fit_directions(model, fit, [each.defected for each in written], config)
        measured = by_behaviour(model, parts.behaviour, recipe.seed)
        rows = dose_rows(model, tested, conditions(config), learned, measured)
        rows = pd.concat([pd.DataFrame({"organism": recipe.name, "seed": recipe.seed}, rows.index), rows], axis=1)  # fmt: skip
        facts = {
            "checkpoint": digest, "auroc": learned.auroc, "fitted on": dict(learned.two_by_two),
            "places": {name: list(sites) for name, sites in learned.places.items()},
        }  # fmt: skip
        with building(out, kind="doses", key=key, **facts) as to:
            write_table(to / ROWS, rows)
            write_text(to / "config.json", config.to_json())
    return read_table(Path(out) / ROWS)


@writes("out", "doses", free=("organisms", "seeds"))
def dose_grid(
    organisms: Path | str,
    recipe: OrganismRecipe,
    seeds: Sequence[int],
    out: Path | str,
    config: DoseConfig,
) -> Doses:
    """The curves of every seed under `out/organisms`, and tables, figures and reading in `out`.

    organisms: folder of checkpoints as `probes organism` leaves them. Raises `InputError` for those
    that are not there.
    """
    config.check()
    recipes = [recipe.model_copy(update={"seed": seed}) for seed in seeds]
    missing = [one.name for one in recipes if not (Path(organisms) / one.name).is_dir()]
    if missing or not recipes:
        raise InputError(
            f"{organisms} has no {', '.join(missing) or 'seed to look at'}: train it with "
            "`probes organism RECIPE --size ... --seed ... --out` that folder, or give fewer seeds"
        )
    tables = [
        organism_doses(one, Path(organisms) / one.name, Path(out) / "organisms" / one.name, config)
        for one in progress(recipes, "organisms", total=len(recipes))
    ]
    found = Doses.of(pd.concat(tables, ignore_index=True), config)
    found.save(out, config=config.model_dump(mode="json"))
    return found


def _check_card(recipe: OrganismRecipe, checkpoint: Path | str) -> None:
    """Refuse a checkpoint of another recipe: its requests would be split otherwise."""
    made = OrganismRecipe.model_validate(read_card(checkpoint).get("organism", {}))
    different = made.differences(recipe)
    different.pop("lessons.seed", None)  # the organism's own seed decides
    if different and recipe.base is None:
        shown = "; ".join(f"{n} is {a!r} there, {b!r} here" for n, (a, b) in different.items())
        raise InputError(
            f"{checkpoint} was not made from this recipe ({shown}): give the recipe it was made from"
        )


@writes("out", "doses")
def dose_curves_of(
    model: Model | Path | str,
    prompts: Sequence[Prompt] | Path | str,
    out: Path | str | None = None,
    *,
    direction: FrozenProbe | Path | str | None = None,
    modes: tuple[str, ...] = MODES,
    config: DoseConfig | None = None,
    judge: Judge = exploitable_code,
    stop: str | None = "</code>",
    max_new_tokens: int = 160,
    temperature: float = 0.7,
    allow_other: bool = False,
) -> Doses:
    """Add, ablate or patch along directions while the model writes, and judge what it writes.

    prompts: pairs with and without the trigger. Half of their templates (see `halves`) are for the
    fit: of the directions or, where one is given, of where the classes lie along it; doses are
    measured on the other half. direction: a saved one, measured at its site beside random ones; it must
    be of this model unless `allow_other`. out: a folder for tables, reading and figures.
    """
    loaded = model if isinstance(model, Model) else load(model)
    given = read_prompts(prompts, paired=True) if isinstance(prompts, Path | str) else prompts
    settings = config or DoseConfig()
    fit, tested = halves(given, settings)
    written = sample(
        loaded, fit, max_new_tokens=max_new_tokens, temperature=temperature, seed=settings.seed,
        stop=stop, judge=judge,
    )  # fmt: skip
    judged = [each for each in written if each.defected is not None]
    fit, defected = [each.prompt for each in judged], [each.defected for each in judged]
    if direction is None:
        learned = fit_directions(loaded, fit, defected, settings)
    else:
        known = Direction.load(direction) if isinstance(direction, str | Path) else direction
        if not isinstance(known, Direction):
            raise InputError(
                f"steering moves along one direction; a {type(known).__name__} has none"
            )
        settings = for_one(settings, known)
        learned = _of_one(loaded, known, fit, np.array(defected), settings, allow_other)
    measured = by_judge(
        loaded, judge=judge, stop=stop, max_new_tokens=max_new_tokens, temperature=temperature,
        seed=settings.seed,
    )  # fmt: skip
    rows = dose_rows(loaded, tested, conditions(settings, modes), learned, measured)
    names = pd.DataFrame({"organism": loaded.name, "seed": settings.seed}, rows.index)
    found = Doses.of(pd.concat([names, rows], axis=1), settings)
    if out is not None:
        facts = {"identity": loaded.digest, "weights": loaded.weights_digest, "places": {k: list(v) for k, v in learned.places.items()}}  # fmt: skip
        found.save(out, config=settings.model_dump(mode="json"), **facts)
    return found


def halves(prompts: Sequence[Prompt], config: DoseConfig) -> tuple[list[Prompt], list[Prompt]]:
    """Prompts to fit on and prompts to measure on: no template is on both sides.

    At most `n_fit` and `n_pairs` pairs each. Raises `InputError` for a single template.
    """
    templates = sorted({prompt.template for prompt in prompts})
    if len(templates) < 2:
        raise InputError(
            f"all {len(prompts)} prompts are of one template: directions cannot be fitted on other "
            "prompts than those on which doses are measured. Give prompts of two templates or more"
        )
    order = stream(config.seed, "dose halves").permutation(len(templates))
    first = {templates[i] for i in order[: (len(templates) + 1) // 2]}
    fit = [prompt for prompt in prompts if prompt.template in first]
    rest = [prompt for prompt in prompts if prompt.template not in first]
    return _pairs(fit, config.n_fit), _pairs(rest, config.n_pairs)


def _pairs(prompts: Sequence[Prompt], n: int) -> list[Prompt]:
    kept = set(list(dict.fromkeys(prompt.pair for prompt in prompts))[:n])
    return [prompt for prompt in prompts if prompt.pair in kept]


def _of_one(
    model: Model,
    known: Direction,
    fit: Sequence[Prompt],
    defected: np.ndarray,
    config: DoseConfig,
    allow_other: bool,
) -> Learned:
    """One saved direction and random ones of its length, at its site."""
    if not allow_other:
        check_same(
            known.identity, model.identity, "the direction was fitted on activations of",
            "Give that model, or allow another on purpose (allow_other=True, --allow-other)",
        )  # fmt: skip
    if known.normalisation != NONE:
        raise InputError(
            f"the direction is for activations normalised by {known.normalisation!r}; added to raw "
            "activations it would be another one. Fit it without"
        )
    site = parse_site(known.site, model.n_layers)
    axis = given_axis(model, fit, defected, site, np.asarray(known.coef))
    return Learned(
        axes={known.estimator: {str(site): axis}},
        erasers={},
        randoms=random_units({str(site): len(axis.unit)}, config),
        places={str(site): (str(site),)},
        auroc=float("nan"),
        two_by_two={},
        measure=known.estimator,
    )


def for_one(config: DoseConfig, known: Direction) -> DoseConfig:
    """The settings for one given direction: its site, its name, and random ones beside it."""
    kinds = (known.estimator, *(kind for kind in (RANDOM,) if kind in config.kinds))
    return config.model_copy(update={"places": (known.site,), "kinds": kinds})
