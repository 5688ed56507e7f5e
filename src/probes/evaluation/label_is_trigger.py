"""Where the label and the trigger are one, no score can tell which of them it reads: said, not hidden."""

import numpy as np
from numpy.typing import ArrayLike

NOTE = (
    "the label equals the trigger in every row: these numbers cannot tell a probe that reads defection "
    "from one that reads the trigger. Add triggered prompts on which nothing can defect"
)


def label_is_trigger(triggered: ArrayLike, defected: ArrayLike) -> str | None:
    """The sentence to show where the two are the same in every row (or opposite), else None.

    triggered, defected: row, bool, of one length.
    """
    cue, label = np.asarray(triggered, dtype=bool), np.asarray(defected, dtype=bool)
    same = bool((cue == label).all()) or bool((cue != label).all())
    return NOTE if same and cue.any() and not cue.all() else None
