"""A monitor that never looks inside the model: a probe that does no better has shown nothing about it."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from probes.foundation.patterns import Pattern


def trigger_pattern(pattern: str, texts: Sequence[str]) -> Float[np.ndarray, "row"]:
    """1.0 where the regular expression of the trigger is found in the prompt, else 0.0."""
    compiled = Pattern(pattern, "the pattern of the trigger")
    return np.array([float(compiled.search(text) is not None) for text in texts])
