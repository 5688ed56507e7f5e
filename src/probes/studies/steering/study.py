"""Dose curves of organisms of the programme, seed by seed, then what they say together; resumable."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from probes.foundation.artifact import building, is_finished, write_text
from probes.foundation.digest import digest_json
from probes.foundation.errors import InputError
from probes.foundation.html import html_table
from probes.foundation.outputs import writes
from probes.foundation.procedures import versions
from probes.foundation.progress import progress
from probes.foundation.tables import read_table, write_table
from probes.models.identity import identity_of
from probes.models.loading import load
from probes.organisms.card import read_card
from probes.organisms.measurement import draw
from probes.organisms.organism import OrganismRecipe, setup
from probes.probing.rows import require_disjoint
from probes.studies.steering.config import DoseConfig
from probes.studies.steering.directions import fit_directions
from probes.studies.steering.figures import save_pictures
from probes.studies.steering.findings import as_text, pooled, reading
from probes.studies.steering.steps import by_behaviour, conditions, dose_rows

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
