"""How a claim is measured: settings of a detection."""

from probes.detection.crossfit import ESTIMATORS, PRIMARY
from probes.foundation.config import Config


class ProbeConfig(Config):
    """estimators: the first makes the claim, the others stand beside it.

    n_permutations: of able and unable families. n_random: directions drawn at the judged site.
    n_boot: resamples of the families.
    """

    estimators: tuple[str, ...] = (PRIMARY, *(name for name in ESTIMATORS if name != PRIMARY))
    n_permutations: int = 199
    n_random: int = 1000
    n_boot: int = 1000
    seed: int = 0
