"""How probes are fitted, and what decides about them: settings of a detection."""

from probes.detection.evidence import Thresholds
from probes.foundation.config import Config


class ProbeConfig(Config):
    """How probes are fitted and doubted; counts of folds, shuffles, directions and resamples."""

    estimators: tuple[str, ...] = ("mean_difference", "logistic")
    n_folds: int = 5
    n_permutations: int = 200
    n_random: int = 1000
    n_boot: int = 1000
    thresholds: Thresholds = Thresholds()
    seed: int = 0
