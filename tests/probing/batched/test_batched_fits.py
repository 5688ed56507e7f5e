"""Fits in one batch are the fits that scikit-learn finds one by one."""

import threading

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info, threadpool_limits

from probes.foundation.errors import InputError, StageError
from probes.probing.batched import newton, spaces
from probes.probing.batched.closed import fit_discriminant, fit_mean_difference, fit_ridge
from probes.probing.batched.logistic import fit_logistic
from probes.probing.batched.problems import in_pieces
from probes.probing.estimators import MeanDifferenceProbe

TOLERANCE = 1e-4
"""Of the largest coefficient: what `fit_logistic` promises at tol=1e-8."""
SHAPES = {"fewer rows than features": (60, 90), "more rows than features": (150, 20)}


def planted(n, d, n_problems=3, seed=0):
    """Activations with a large mean, unequal variances and a weak direction; unequal, uneven folds."""
    rng = np.random.default_rng(seed)
    y = rng.random(n) < 0.4
    y[:10] = [True, False] * 5
    scale = np.geomspace(3, 0.03, d)
    X = rng.normal(size=(n_problems, n, d)) * scale + 5.0
    X[:, :, 0] += 2 * y
    folds = rng.integers(0, 4, n)
    folds[:10] = [0, 0, 1, 1, 2, 2, 3, 3, 0, 1]
    train = np.stack([folds != k for k in range(4)] + [np.ones(n, dtype=bool)])
    return X, y, train


def apart(found, reference):
    return np.abs(found - reference).max() / np.abs(reference).max()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("C", [1e-3, 1.0, 100.0])
def test_logistic_is_scikit_learns(shape, C):
    X, y, train = planted(*shape)
    found = fit_logistic(X, y, train, C=(C, 0.1), tol=1e-8)
    assert (found.gradient <= 1e-8).all()
    for p, rows in enumerate(X):
        for f, mask in enumerate(train):
            centre = rows[mask].mean(0)
            other = LogisticRegression(C=C, tol=1e-8, solver="newton-cholesky", max_iter=500)
            other.fit(rows[mask] - centre, y[mask])
            assert apart(found.coef[p, f, 0], other.coef_[0]) < TOLERANCE
            ours = found.scores(p, rows)[f, 0]
            assert apart(ours, other.decision_function(rows - centre)) < TOLERANCE


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_standardised_logistic_is_the_pipelines(shape):
    X, y, train = planted(*shape)
    X[:, :, 3] = 7.0 + 1e-9 * y
    found = fit_logistic(X, y, train, C=(0.3, 3.0), standardise=True, tol=1e-8)
    kept = np.arange(X.shape[2]) != 3
    for f, mask in enumerate(train):
        other = make_pipeline(
            StandardScaler(), LogisticRegression(C=3.0, tol=1e-8, solver="newton-cholesky")
        ).fit(X[1][mask][:, kept], y[mask])
        expected = other.decision_function(X[1][:, kept])
        assert apart(found.scores(1, X[1])[f, 1], expected) < TOLERANCE
    assert (found.coef[..., 3] == 0).all()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_reported_gradient_bounds_the_true_one(shape):
    X, y, train = planted(*shape)
    found = fit_logistic(X, y, train, C=(1.0,), tol=1e-5)
    for f, mask in enumerate(train):
        centred = X[0] - X[0].mean(0)
        odds = found.scores(0, X[0])[f, 0][mask]
        residual = 1 / (1 + np.exp(-odds)) - y[mask]
        gradient = (centred[mask].T @ residual + found.coef[0, f, 0]) / mask.sum()
        assert np.abs(gradient).max() <= found.gradient[0, f, 0] * (1 + 1e-6) + 1e-12
        assert abs(residual.mean()) <= 1e-5


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_ridge_is_scikit_learns(shape):
    X, y, train = planted(*shape)
    found = fit_ridge(X, y, train, alpha=(0.5, 50.0))
    for f, mask in enumerate(train):
        for s, alpha in enumerate((0.5, 50.0)):
            other = RidgeClassifier(alpha=alpha).fit(X[2][mask], y[mask])
            assert apart(found.coef[2, f, s], np.ravel(other.coef_)) < 1e-8
            assert apart(found.intercept[2, f, s], other.intercept_) < 1e-8


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_discriminant_is_scikit_learns(shape):
    X, y, train = planted(*shape)
    found = fit_discriminant(X, y, train, shrinkage=(0.05, 0.7, 1.0))
    for f, mask in enumerate(train):
        for s, shrinkage in enumerate((0.05, 0.7, 1.0)):
            other = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)
            other.fit(X[0][mask], y[mask])
            expected = other.decision_function(X[0])
            assert apart(found.scores(0, X[0])[f, s], expected) < 1e-7


def test_mean_difference_is_the_probes_own():
    X, y, train = planted(60, 90)
    found = fit_mean_difference(X, y, train)
    whitened = fit_discriminant(X, y, train, shrinkage=(1.0,), prior=False)
    for f, mask in enumerate(train):
        other = MeanDifferenceProbe().fit(X[1][mask], y[mask])
        assert apart(found.coef[1, f, 0], other.coef_[0]) < 1e-9
        assert apart(found.intercept[1, f], other.intercept_) < 1e-9
        scores, others = whitened.scores(1, X[1])[f, 0], other.decision_function(X[1])
        assert np.corrcoef(scores, others)[0, 1] > 1 - 1e-9


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_neither_pieces_nor_threads_change_a_bit(shape):
    X, y, train = planted(*shape, n_problems=5)
    whole = fit_logistic(X, y, train, C=(1.0, 0.1), tol=1e-8)
    mapped = fit_logistic(list(X), y, train, C=(1.0, 0.1), tol=1e-8, memory=1)
    torch.set_num_threads(3)
    try:
        threads = fit_logistic(X, y, train, C=(1.0, 0.1), tol=1e-8)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)
    alone = fit_logistic(X[3:4], y, train, C=(1.0, 0.1), tol=1e-8)
    for other in (mapped, threads):
        np.testing.assert_array_equal(whole.coef, other.coef)
        np.testing.assert_array_equal(whole.intercept, other.intercept)
    np.testing.assert_array_equal(whole.coef[3:4], alone.coef)


def test_problems_side_by_side_each_have_one_thread_of_blas():
    seen = []

    def work(chunk):
        blas = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
        seen.append((torch.get_num_threads(), *blas))
        return threading.get_ident()

    chunks = [range(i, i + 1) for i in range(6)]
    torch.set_num_threads(2)
    try:
        with threadpool_limits(2, user_api="blas"):
            found = dict(in_pieces(work, chunks, "a test", 2))
            assert torch.get_num_threads() == 2
            after = {p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"}
    finally:
        torch.set_num_threads(1)
    assert list(found) == chunks and threading.get_ident() not in found.values()
    assert {n for each in seen for n in each} == {1}
    assert after == {2}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_weak_penalty_is_factored_in_double_precision(shape, monkeypatch):
    kind = spaces.Dual if shape[0] < shape[1] else spaces.Primal
    refined, plain = [], kind.refine
    monkeypatch.setattr(kind, "refine", lambda self: (refined.append(1), plain(self))[1])
    X, y, _ = planted(*shape)
    X[:, :, 1] = X[:, :, 0] + 1e-4 * X[:, :, 1]
    found = fit_logistic(X * 100, y, C=(1e4,), tol=1e-7)
    assert refined
    assert (found.gradient <= 1e-7).all()


def test_what_does_not_converge_is_an_error():
    X, y, train = planted(60, 90)
    with pytest.raises(StageError, match=r"of \d+ fits did not converge in 2 steps.*smaller C"):
        fit_logistic(X, y, train, C=(1.0,), tol=1e-8, max_steps=2)


def test_old_factors_serve_several_steps():
    X, y, train = planted(60, 90, n_problems=1)
    data = spaces.Data(torch.from_numpy(X - X.mean(1, keepdims=True)))
    columns = spaces.Columns(
        torch.from_numpy(y).double(), torch.from_numpy(train), torch.ones(5).double()
    )
    solved = newton.solve_logistic(spaces.make_space(data, columns), tol=1e-8, max_steps=100)
    assert solved.n_factors < 5 * solved.n_steps / 2


def test_what_cannot_be_fitted_is_refused():
    X, y, train = planted(60, 90)
    with pytest.raises(InputError, match="fold 0 is fitted on one class only: 0 positive of"):
        fit_logistic(X, np.zeros(60, dtype=bool), train)
    broken = X.copy()
    broken[2, 5, 7] = np.nan
    with pytest.raises(InputError, match="problem 2 holds NaN"):
        fit_logistic(broken, y, train)
    with pytest.raises(InputError, match="problem 1 has shape"):
        fit_logistic([X[0], X[1][:, :5]], y, train)
    with pytest.raises(InputError, match="C holds positive numbers"):
        fit_logistic(X, y, train, C=(0.0,))
    with pytest.raises(InputError, match="shrinkage lies above 0"):
        fit_discriminant(X, y, train, shrinkage=(0.0,))
    with pytest.raises(InputError, match=r"boolean \(fold, row\)"):
        fit_ridge(X, y, train[:, :7])
