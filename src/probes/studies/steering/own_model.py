"""Dose curves for a model and prompts of one's own, with all directions fitted here or one that was saved."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from probes.behaviour.judges import Judge, exploitable_code
from probes.behaviour.sampling import sample
from probes.foundation.errors import InputError
from probes.foundation.outputs import writes
from probes.foundation.seeds import stream
from probes.models.identity import check_same
from probes.models.loading import Model, load
from probes.models.sites import parse_site
from probes.probing.frozen import NONE, Direction, FrozenProbe
from probes.prompts.readers import read_prompts
from probes.prompts.records import Prompt
from probes.studies.steering.config import MODES, RANDOM, DoseConfig
from probes.studies.steering.directions import Learned, fit_directions, given_axis, random_units
from probes.studies.steering.steps import by_judge, conditions, dose_rows
from probes.studies.steering.study import Doses


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
