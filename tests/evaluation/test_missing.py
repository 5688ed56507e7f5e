"""A label, group, pair or set name that is missing is refused by its rows, wherever it is given."""

import numpy as np
import pandas as pd
import pytest

from probes.detection.contrast import label_is_trigger
from probes.evaluation.auroc import auroc
from probes.evaluation.proportions import rate
from probes.evaluation.worst_set import worst_set
from probes.foundation.errors import InputError
from probes.probing.attention import AttentionProbe
from probes.probing.erasure import LeaceEraser
from probes.probing.estimators import LogisticProbe, MLPProbe, PairedPCAProbe
from probes.probing.random_directions import random_directions
from probes.probing.sweep import sweep

N = 40
X = np.random.default_rng(0).normal(size=(N, 4))
SITE = {"resid_post.0": X}
Y = [i % 2 == 0 for i in range(N)]
PAIRS = [f"p{i // 2}" for i in range(N)]
SETS = ["a", "b"] * (N // 2)
TOKENS = [X[i : i + 1] for i in range(N)]
SCORES = X[:, 0]
CALLS = {
    "sweep": lambda y, g: sweep(SITE, y, g, estimator="mean_difference"),
    "sweep of pairs": lambda y, g: sweep(SITE, y, PAIRS, estimator="paired_pca", pairs=g),
    "random": lambda y, g: random_directions(SITE, Y, SITE, y, n=2, negative_set=g),
    "auroc": lambda y, g: auroc(y, SCORES),
    "worst set": lambda y, g: worst_set(SCORES, y, SETS, g, n_boot=10),
    "set names": lambda y, g: worst_set(SCORES, y, g, PAIRS, n_boot=10),
    "rate": lambda y, g: rate(y, g),
    "trigger": lambda y, g: label_is_trigger(Y, y),
    "logistic": lambda y, g: LogisticProbe().fit(X, y),
    "mlp": lambda y, g: MLPProbe(n_hidden=2).fit(X, y),
    "pairs": lambda y, g: PairedPCAProbe().fit(X, y, g),
    "erasure": lambda y, g: LeaceEraser().fit(X, y),
    "attention": lambda y, g: AttentionProbe().fit(TOKENS, y),
}
WITHOUT_GROUPS = {"auroc", "trigger", "logistic", "mlp", "erasure", "attention"}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("absent", [None, np.nan, pd.NA], ids=["None", "NaN", "NA"])
@pytest.mark.parametrize(
    "form", [list, lambda v: pd.Series(v, dtype=object)], ids=["list", "series"]
)
def test_a_missing_value_is_named_by_its_row(name, absent, form):
    row = 3 if name in ("set names", "random") else 6  # a negative row: others have no set
    labels = [*Y[:6], absent, *Y[7:]]
    with pytest.raises(InputError, match=r"1 of 40 labels are missing .* at rows 6: leave") as seen:
        CALLS[name](form(labels), form(PAIRS))
    assert "\n" not in str(seen.value)
    if name not in WITHOUT_GROUPS:
        groups = [*PAIRS[:row], absent, *PAIRS[row + 1 :]]
        with pytest.raises(InputError, match=r"1 of \d+ (groups|pairs|set names).* are missing"):
            CALLS[name](form(Y), form(groups))


def test_nullable_columns_without_gaps_are_labels_like_others():
    column = pd.Series(Y, dtype="boolean")
    assert auroc(column, SCORES) == auroc(Y, SCORES)
    assert auroc(column, pd.Series(SCORES, dtype="Float64")) == auroc(Y, SCORES)
    with pytest.raises(InputError, match="1 of 40 scores are NaN or infinite"):
        auroc(column, [*SCORES[:-1], pd.NA])
