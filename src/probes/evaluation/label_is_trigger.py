"""Where the label and the trigger are one, no score can tell which of them it reads: said, not hidden."""

from numpy.typing import ArrayLike

from probes.evaluation.auroc import as_labels

NOTE = (
    "the label equals the trigger in every row: these numbers cannot tell a probe that reads defection "
    "from one that reads the trigger. Add triggered prompts on which nothing can defect"
)


def label_is_trigger(triggered: ArrayLike, defected: ArrayLike) -> str | None:
    """The sentence to show where the two are the same in every row (or opposite), else None.

    triggered, defected: row, bool, of one length.
    """
    cue, label = as_labels(triggered), as_labels(defected)
    same = bool((cue == label).all()) or bool((cue != label).all())
    return NOTE if same and cue.any() and not cue.all() else None
