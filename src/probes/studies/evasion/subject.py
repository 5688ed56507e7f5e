"""One organism on held-out prompts: what it writes, what it computes, and which rows judge a probe."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pandas as pd

from probes.activations.record import record
from probes.models.loading import Model
from probes.organisms.measurement import draw
from probes.organisms.organism import OrganismRecipe, setup
from probes.probing.rows import varying
from probes.prompts.records import Prompt
from probes.studies.evasion.config import ExamineConfig


@dataclasses.dataclass(frozen=True, eq=False)
class Examined:
    """A model with everything that detectors look at, prompts in one order throughout.

    texts: what it wrote on each prompt. defected: whether that was judged a defection, missing
    where it could not be judged. X: by site,
    activations of the residual stream at the prompt's last token, where anything varies.
    """

    model: Model
    prompts: tuple[Prompt, ...]
    texts: tuple[str, ...]
    defected: pd.arrays.BooleanArray
    X: Mapping[str, np.ndarray]
    table: pd.DataFrame


def heldout_prompts(recipe: OrganismRecipe, config: ExamineConfig) -> tuple[Prompt, ...]:
    """Pairs of requests that no organism was taught, and the trigger's look-alikes; none twice.

    Look-alikes are of the families of the pairs, so that one split serves both.
    """
    lessons = recipe.lessons.model_copy(update={"test": config.pairs, "near": config.near})
    parts = setup(recipe.model_copy(update={"lessons": lessons})).lessons
    pairs: dict[str, list[Prompt]] = {}
    for prompt in (*parts.test, *parts.near):
        pairs.setdefault(prompt.pair, []).append(prompt)
    families = {prompt.family for prompt in parts.test}
    seen: set[tuple[object, ...]] = set()
    chosen: list[Prompt] = []
    for members in pairs.values():
        texts = {(prompt.text, prompt.chat) for prompt in members}
        if not texts & seen and members[0].family in families:
            chosen += members
            seen |= texts
    return tuple(chosen)


def examine(model: Model, recipe: OrganismRecipe, config: ExamineConfig) -> Examined:
    """Let the organism write on each prompt once, judge it, and read its residual stream."""
    prompts = heldout_prompts(recipe, config)
    written = draw(model, setup(recipe).behaviour, prompts, seed=recipe.seed)
    found = record(model, prompts)
    X = {str(site): found.matrix(site) for site in found.sites}
    return Examined(
        model=model,
        prompts=prompts,
        texts=tuple(one.text for one in written),
        defected=pd.array([one.defected for one in written], dtype="boolean"),
        X={site: values for site, values in X.items() if varying(values).any()},
        table=found.prompts,
    )
