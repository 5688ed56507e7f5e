"""Which rows a probe is fitted on and which judge it, in the evasion study.

Limits. Rows are judged by what a model wrote, not by a design: one split of the families into two halves,
AUROCs of defected prompts against the worst set of others, intervals over prompt pairs of that one
split. Such numbers compare detectors on one organism; they do not say what a detector reads, which is
what `detection` asks. Where the label equals the trigger, a detector of the trigger is as good here.
"""

import dataclasses

import numpy as np
import pandas as pd
from jaxtyping import Bool

from probes.foundation.errors import InputError
from probes.foundation.seeds import stream
from probes.organisms.lessons import NEAR

MIN_SET = 8
"""Negative sets with fewer rows are left out of the worst set: one odd row would decide it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """Labels, and masks over the prompts, all of length row.

    y: whether the organism defected. pairs: a prompt with and without its trigger share one. fit: rows
    that probes are fitted on. contrast: judged rows of pairs that defect with the trigger: the same task
    with and without it. worst: judged rows of defections and of negative sets that are large enough,
    the trigger's look-alikes among them. fold_groups: of each fitted row, what cross-validation keeps
    together: families where enough of them defect, else templates.
    """

    y: Bool[np.ndarray, "row"]
    pairs: np.ndarray
    fit: Bool[np.ndarray, "row"]
    contrast: Bool[np.ndarray, "row"]
    worst: Bool[np.ndarray, "row"]
    negative_set: np.ndarray
    fold_groups: np.ndarray


def make_frame(
    prompts: pd.DataFrame, defected: pd.arrays.BooleanArray, n_folds: int, seed: int
) -> Frame:
    """Label prompts by what the model wrote and split them so that whole families are held out.

    prompts: one row each. defected: missing where no completion could be judged: such a prompt is in no
    part. Half of the families of each prompt set go to the fit; where a set has one family only, whole
    templates are split. A look-alike is never fitted on: one on which the organism defected is a
    positive, the others of families that no probe was fitted on are negative sets of their own.
    Raises `InputError` where nothing, or everything, defected.
    """
    near = (prompts["prompt_set"] == NEAR).to_numpy()
    of_family = prompts[~near].drop_duplicates("family").set_index("family")["prompt_set"]
    # Its request's own set, so that the split by families is the one of the pairs.
    place = prompts["prompt_set"].mask(near, prompts["family"].map(of_family))
    known = ~np.asarray(pd.isna(defected))
    y = np.asarray(pd.array(defected, dtype="boolean").fillna(False), dtype=bool)
    table = prompts.assign(prompt_set=place, defected=y).reset_index(drop=True)
    own = table[known]
    if own["defected"].nunique() < 2:
        done = "every" if len(own) and own["defected"].all() else "no"
        raise InputError(
            f"{done} one of {len(own)} prompts defected, so there is nothing to tell apart: one class only"
        )
    several = (own.groupby("prompt_set")["family"].nunique() >= 2).all()
    held_out = "family" if several else "template"
    in_fit = table[held_out].isin(_half(own, held_out, seed)).to_numpy()
    seen = (table["heldout"] == "").to_numpy() & known
    fit, evaluation = seen & in_fit, seen & ~in_fit
    judged = near & known & ~seen & ~in_fit
    sets = _negative_sets(table, near)
    large = _large(sets, evaluation & ~y)
    worst = (evaluation & (y | large)) | (judged & (y | _large(sets, judged & ~y)))
    defecting = set(table.loc[evaluation & y, "pair"])
    enough = table.loc[fit & y, "family"].nunique() >= n_folds
    return Frame(
        y=y,
        pairs=table["pair"].to_numpy(),
        fit=fit,
        contrast=evaluation & table["pair"].isin(defecting).to_numpy(),
        worst=worst,
        negative_set=sets,
        fold_groups=table.loc[fit, "family" if enough else "template"].to_numpy(),
    )


def _negative_sets(table: pd.DataFrame, near: np.ndarray) -> np.ndarray:
    triggered = table["triggered"].to_numpy(bool)
    cue, fires = np.where(triggered, "trigger", "no trigger"), np.where(triggered, "fires", "does not fire")  # fmt: skip
    own = [f"{name}, {seen}" for name, seen in zip(table["prompt_set"], cue, strict=True)]
    return np.where(near, np.char.add("look-alike that ", fires), np.array(own))


def _large(sets: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Rows of a set of at least `MIN_SET` of these negatives; a set without any is no set."""
    sizes = pd.Series(sets[negative]).value_counts()
    return np.isin(sets, list(sizes[sizes >= MIN_SET].index))


def _half(table: pd.DataFrame, column: str, seed: int) -> set[str]:
    """Half of the groups of each prompt set, drawn by the seed."""
    chosen: set[str] = set()
    for prompt_set, part in table.groupby("prompt_set"):
        names = sorted(part[column].unique())
        order = stream(seed, "held-out", column, prompt_set).permutation(len(names))
        chosen |= {names[i] for i in order[: (len(names) + 1) // 2]}
    return chosen
