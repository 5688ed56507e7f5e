"""Every probe keeps scikit-learn's promises, finds what was planted, and agrees with its peer."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import approx_fprime
from sklearn.base import BaseEstimator
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from probes.foundation.errors import InputError
from probes.probing.attention import AttentionProbe
from probes.probing.erasure import LeaceEraser
from probes.probing.estimators import (
    ContrastConsistentProbe,
    DiscriminantProbe,
    LogisticProbe,
    MeanDifferenceProbe,
    MLPProbe,
    PairedPCAProbe,
    RidgeProbe,
    SparseProbe,
    _loss,
)

PROBES = [MeanDifferenceProbe(), LogisticProbe()]
LINEAR = [
    *PROBES,
    MeanDifferenceProbe(shrinkage=0.5),
    RidgeProbe(),
    DiscriminantProbe(),
    PairedPCAProbe(),
    SparseProbe(k=12),
    ContrastConsistentProbe(n_tries=2, max_iter=50),
]


@parametrize_with_checks([*LINEAR, MLPProbe(n_hidden=4), LeaceEraser()])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_scikit_learn_promises(estimator, check):
    check(estimator)


def planted(seed=0, n=300, width=24):
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=width)
    direction /= np.linalg.norm(direction)
    y = np.arange(n) % 2 == 1
    return rng.normal(size=(n, width)) + 4 * np.outer(y, direction) + 3.0, y, direction


@pytest.mark.parametrize("probe", LINEAR, ids=str)
def test_a_planted_direction_is_found(probe):
    X, y, direction = planted()
    coef = probe.fit(X, y).coef_[0]
    least = {SparseProbe: 0.8, ContrastConsistentProbe: 0.6}.get(type(probe), 0.9)
    assert coef @ direction / np.linalg.norm(coef) > least
    assert probe.score(X, y) > 0.95


def test_mean_difference_by_hand():
    X = np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 5.0], [6.0, 5.0]])
    probe = MeanDifferenceProbe().fit(X, [False, False, True, True])
    np.testing.assert_array_equal(probe.coef_, [[4.0, 4.0]])
    assert probe.decision_function([[3.0, 3.0]]) == 0.0
    assert probe.decision_function([[5.0, 5.0]]) == 16.0


def test_whitening_turns_away_from_the_noisy_feature():
    rng = np.random.default_rng(0)
    y = np.arange(400) % 2 == 1
    X = rng.normal(size=(400, 2)) * [10.0, 1.0] + np.outer(y, [2.0, 2.0])
    plain, white = MeanDifferenceProbe().fit(X, y), MeanDifferenceProbe(shrinkage=1e-6).fit(X, y)
    within = np.cov((X - np.where(y[:, None], X[y].mean(0), X[~y].mean(0))).T, bias=True)
    gap = X[y].mean(0) - X[~y].mean(0)
    np.testing.assert_allclose(white.coef_[0], np.linalg.solve(within, gap), rtol=1e-3)
    assert abs(white.coef_[0, 0] / white.coef_[0, 1]) < 0.1 < abs(plain.coef_[0, 0])
    np.testing.assert_allclose(white.decision_function([X[y].mean(0) + X[~y].mean(0)]), 0, atol=9)


def test_logistic_in_raw_space_is_the_standardised_regression():
    X, y, _ = planted()
    X *= np.geomspace(0.01, 100, X.shape[1])
    other = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(X, y)
    probe = LogisticProbe().fit(X, y)
    np.testing.assert_allclose(
        probe.decision_function(X), other.decision_function(X), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize(
    ("probe", "peer"),
    [
        (RidgeProbe(alpha=7.0), RidgeClassifier(alpha=7.0)),
        (
            DiscriminantProbe(shrinkage=0.3),
            LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3),
        ),
    ],
    ids=str,
)
def test_closed_forms_are_scikit_learns(probe, peer):
    X, y, _ = planted()
    ours, theirs = probe.fit(X, y).decision_function(X), peer.fit(X, y).decision_function(X)
    np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    "probe",
    [*PROBES, RidgeProbe(), DiscriminantProbe(), SparseProbe(k=3), ContrastConsistentProbe(2)],
    ids=lambda p: type(p).__name__,
)
def test_rounding_noise_in_a_constant_feature_is_not_a_signal(probe):
    X, y, _ = planted()
    X[:, 3] = 1000.0 + 1e-5 * y
    noisy = probe.fit(X, y).decision_function(X)
    assert probe.coef_[0, 3] == 0.0
    X[:, 3] = 1000.0
    np.testing.assert_allclose(noisy, probe.fit(X, y).decision_function(X), atol=1e-9)


def test_rounding_noise_is_no_signal_for_a_network_either():
    X, y, _ = planted()
    X[:, 3] = 1000.0 + 1e-5 * y
    probe = MLPProbe(n_hidden=4).fit(X, y)
    assert (probe.hidden_[3] == 0).all() and (probe.hidden_[4] != 0).any()


@pytest.mark.parametrize("probe", [*LINEAR, MLPProbe()], ids=str)
def test_one_class_is_refused(probe):
    with pytest.raises(InputError, match="two classes"):
        probe.fit(np.zeros((4, 2)), [True] * 4)


def in_pairs(seed=0, n=150, width=24):
    """Pairs that share a large common part and differ by a direction; rows in a random order."""
    rng = np.random.default_rng(seed)
    direction = np.eye(width)[4]
    common = 10 * rng.normal(size=(n, width))
    rows = np.concatenate([common - direction, common + direction])
    rows += 0.2 * rng.normal(size=rows.shape)
    y, pairs = np.repeat([False, True], n), np.tile(np.arange(n), 2)
    order = rng.permutation(2 * n)
    return rows[order], y[order], pairs[order], direction


def test_paired_pca_needs_the_right_pairs():
    X, y, pairs, direction = in_pairs()
    paired = PairedPCAProbe().fit(X, y, pairs=pairs)
    assert paired.coef_[0] @ direction > 0.99
    assert 0.6 < paired.explained_ < 0.8  # 4 of the differences, 24 * 0.08 of the noise
    assert abs(PairedPCAProbe().fit(X, y).coef_[0] @ direction) < 0.9  # pairs of strangers
    alike = PairedPCAProbe().fit(
        X, y | (pairs < 20), pairs=pairs
    )  # labels of a pair may be the same
    np.testing.assert_allclose(alike.coef_, paired.coef_, atol=1e-12)
    extra = (
        np.concatenate([X, 50 * X[:9]]),
        np.append(y, y[:9]),
        np.append(pairs, 999 + np.arange(9)),
    )
    alone = PairedPCAProbe().fit(extra[0], extra[1], pairs=extra[2])  # rows without a partner
    np.testing.assert_allclose(alone.coef_, paired.coef_, atol=1e-12)
    with pytest.raises(InputError, match="no two of 300 rows share an id"):
        PairedPCAProbe().fit(X, y, pairs=np.arange(len(y)))
    with pytest.raises(InputError, match=r"pair '0\.0' has 300 rows: a pair is two rows"):
        PairedPCAProbe().fit(X, y, pairs=np.zeros(len(y)))
    with pytest.raises(InputError, match="one id each"):
        PairedPCAProbe().fit(X, y, pairs=pairs[:5])


def test_contrast_consistent_search_finds_truth_without_labels():
    """Two phrasings of each question; the phrasing is the larger difference, truth the consistent one."""
    rng = np.random.default_rng(1)
    n, width = 200, 16
    truth, phrasing = np.eye(width)[2], np.eye(width)[9]
    right = rng.random(n) < 0.5
    common = rng.normal(size=(n, width)) * 0.3
    signs = np.where(right, 1.0, -1.0)[:, None]
    yes, no = common + signs * truth + 3 * phrasing, common - signs * truth - 3 * phrasing
    X, side = np.concatenate([yes, no]), np.repeat([True, False], n)
    y, pairs = np.concatenate([right, ~right]), np.tile(np.arange(n), 2)
    probe = ContrastConsistentProbe().fit(X, y, pairs=pairs, side=side)
    unit = probe.coef_[0] / np.linalg.norm(probe.coef_[0])
    assert unit @ truth > 0.9
    assert probe.loss_ < 0.05
    mixed = y.copy()
    swapped = rng.random(n) < 0.2  # wrong labels of a fifth of the pairs turn no more than the sign
    mixed[np.isin(pairs, np.flatnonzero(swapped))] ^= True
    again = ContrastConsistentProbe().fit(X, mixed, pairs=pairs, side=side).coef_[0]
    assert unit @ again / np.linalg.norm(again) > 0.9
    with pytest.raises(InputError, match="side equals the labels"):
        ContrastConsistentProbe().fit(X, y, pairs=pairs, side=y)


def test_sparse_probe_chooses_the_planted_features():
    rng = np.random.default_rng(2)
    y = np.arange(200) % 2 == 1
    X = rng.normal(size=(200, 40)) * np.geomspace(0.1, 10, 40)
    for feature in (3, 17, 30):
        X[:, feature] += 2 * y * X[:, feature].std()
    probe = SparseProbe(k=3).fit(X, y)
    assert sorted(probe.features_.tolist()) == [3, 17, 30]
    assert np.flatnonzero(probe.coef_[0]).tolist() == [3, 17, 30]
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8))
    other = pipeline.fit(X[:, [3, 17, 30]], y).decision_function(X[:, [3, 17, 30]])
    np.testing.assert_allclose(probe.decision_function(X), other, rtol=1e-4, atol=1e-4)


def test_mlp_finds_what_no_direction_holds():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(600, 6))
    y = (X[:, 0] > 0) ^ (X[:, 1] > 0)
    probe = MLPProbe().fit(X[:400], y[:400])
    assert probe.score(X[400:], y[400:]) > 0.9
    assert LogisticProbe().fit(X[:400], y[:400]).score(X[400:], y[400:]) < 0.65


def test_contrast_consistent_search_descends_by_its_own_gradient():
    rng = np.random.default_rng(7)
    low, high, weights = rng.normal(size=(9, 4)), rng.normal(size=(9, 4)), rng.normal(size=5)
    slow = approx_fprime(weights, lambda w: _loss(w, low, high)[0], 1e-7)
    np.testing.assert_allclose(_loss(weights, low, high)[1], slow, atol=1e-6)
    pairs = np.stack([1 / (1 + np.exp(-(x @ weights[:-1] + weights[-1]))) for x in (low, high)])
    by_hand = ((pairs.sum(0) - 1) ** 2 + pairs.min(0) ** 2).mean() + 1e-3 * (
        weights[:4] ** 2
    ).sum() / 5
    assert _loss(weights, low, high)[0] == pytest.approx(by_hand)


def sequences(n=160, width=12, seed=4):
    """One token of each positive sequence carries the signal, anywhere; the rest is noise."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2 == 1
    X, where = [], rng.integers(0, 6, n)
    for label, at in zip(y, where, strict=True):
        tokens = rng.normal(size=(int(rng.integers(8, 14)), width))
        tokens[at, 0] += 6  # what to look for
        tokens[at, 1] += 6 * (1 if label else -1)  # what it says
        X.append(tokens)
    return X, y, where


def test_attention_finds_the_token_that_matters():
    X, y, where = sequences()
    probe = AttentionProbe().fit(X[:120], y[:120])
    assert (probe.predict(X[120:]) == y[120:]).mean() > 0.95
    weights = probe.attention(X[120:])
    assert np.mean([w.argmax() == at for w, at in zip(weights, where[120:], strict=True)]) > 0.9
    assert all(abs(w.sum() - 1) < 1e-12 for w in weights)
    means = np.array([one.mean(0) for one in X])
    pooled = LogisticProbe().fit(means[:120], y[:120])
    assert probe.loss_ < 0.4
    assert (pooled.predict(means[120:]) == y[120:]).mean() < 1.0


def test_attention_refuses_what_it_cannot_read():
    X, y, _ = sequences(n=8)
    with pytest.raises(InputError, match="sequence 1 has shape"):
        AttentionProbe().fit([X[0], X[1][:, :3], *X[2:]], y)
    with pytest.raises(InputError, match="7 sequences and 8 labels"):
        AttentionProbe().fit(X[:7], y)
    with pytest.raises(InputError, match="two classes"):
        AttentionProbe().fit(X, np.ones(8, dtype=bool))
    X[2][0, 0] = np.nan
    with pytest.raises(InputError, match="sequence 2 holds NaN"):
        AttentionProbe().fit(X, y)


def test_after_erasure_no_linear_probe_beats_chance():
    X, y, direction = planted()
    eraser = LeaceEraser().fit(X, y)
    erased = eraser.transform(X)
    gap = erased[y].mean(0) - erased[~y].mean(0)
    assert np.abs(gap).max() < 1e-6
    assert RidgeProbe(alpha=1e-3).fit(erased, y).score(erased, y) < 0.6
    across = np.eye(len(direction)) - np.outer(direction, direction)
    assert np.linalg.norm((erased - X) @ across) < 0.5 * np.linalg.norm((erased - X) @ direction)


def test_attention_is_no_scikit_learn_estimator_and_does_not_pass_for_one():
    probe = AttentionProbe(seed=3)
    assert not isinstance(probe, BaseEstimator) and repr(probe).endswith("seed=3)")
    X = [np.ones((2, 3)), np.zeros((1, 3))]
    with pytest.raises(InputError, match="call fit first"):
        probe.decision_function(X)
    with pytest.raises(InputError, match="there are no sequences"):
        probe.fit([], [])
    for form in (list, np.array, lambda y: pd.Series(y, dtype="boolean")):
        assert probe.fit(X, form([True, False])).predict(X).tolist() == [True, False]
