"""The version of every procedure that makes results: results of older code are not taken for new ones."""

from importlib import metadata

from probes.foundation.errors import unknown

VERSIONS: dict[str, int] = {
    "conversion": 1,
    "training": 1,
    "safety training": 1,
    "reversal": 1,
    # 2: chat templates see a pinned date, a text has one start token, and an answer in a chat no
    # longer stops at </code>.
    "sampling": 2,
    # 2: Markdown by its grammar, thoughts cut off, what cannot be judged is missing.
    "judging": 2,
    # 2: chats and start tokens as in sampling; attention sinks are left out of means.
    "activations": 2,
    # 2: chats and start tokens as in sampling.
    "surprise": 2,
    # 2: folds by family, and selectivity decides only where the innocent twin may fire. 3: layer 0,
    # perplexity, standard library, look-alikes, alarms at a fixed threshold, held-out wording; a
    # logistic probe ends at a gradient of 1e-6: its AUROC moves in the third digit.
    # 4: "among those that can defect" counts prompt sets in which a tenth of the triggered rows do.
    # 5: cross-fitted over families, judged by D on a ladder (docs/how-a-claim-is-judged.md).
    # 6: the share of the response to cue B counts as well.
    "detection": 6,
    "contrast probes": 1,
    # 2: chats and start tokens as in sampling; attention sinks have means of their own.
    # 3: every grid keeps the two unpatched runs in one order.
    "patching": 3,
    "localisation": 1,
    "steering": 1,
    "evasion": 1,
    "audit": 3,
}
"""To be raised, in the change that does it, where the same inputs give other numbers."""

LIBRARIES = {"judging": ("bandit",)}
"""Libraries whose verdicts are part of a procedure, whatever version is installed."""


def versions(*procedures: str) -> dict[str, int | str]:
    """The versions of the procedures that a result rests on, and of their libraries, for its key."""
    for name in procedures:
        if name not in VERSIONS:
            raise unknown("procedure", name, VERSIONS)
    libraries = [library for name in procedures for library in LIBRARIES.get(name, ())]
    return {
        **{name: VERSIONS[name] for name in procedures},
        **{library: metadata.version(library) for library in libraries},
    }
