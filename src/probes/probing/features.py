"""What every probe asks of its columns: which of them vary at all."""

import numpy as np
from jaxtyping import Bool, Float

CONSTANT = 1e-6


def varying(X: Float[np.ndarray, "row feature"]) -> Bool[np.ndarray, "feature"]:
    """True for features whose range exceeds `CONSTANT` times their largest magnitude.

    The rest is rounding noise (the embedding of one and the same token in batches of different
    shape), which a probe must not blow up into a signal: it may go with the length of the prompt.
    """
    return np.asarray(np.ptp(X, axis=0) > CONSTANT * np.abs(X).max(axis=0))
